"""What is new in Qwen3-VL: features that enter deeper, normed queries and keys, times between frames."""

from __future__ import annotations

import pytest
import torch

import duet
from duet.backbones.qwen_sides import QwenVision
from duet.budget import Budget
from duet.engine.attachment import attached, is_attached
from duet.method_table import METHODS
from tests.duet.qwen2_5_vl.plain import recompute
from tests.tiny_parts import check_rows_alone, recomputed
from tests.tiny_qwen import END, VOCAB
from tests.tiny_qwen3 import BUDGET, DEEP, collate, make_row, mixed_rows, tiny_qwen3
from tests.tiny_words import tiny_tokenizer

EARLY = Budget(4, 2, 2, layers=(1, 2), ratios=(0.6, 0.25))


@pytest.fixture(scope="module")
def tiny():
    return tiny_qwen3()


@pytest.fixture(autouse=True)
def stock_again(tiny):
    yield
    if is_attached(tiny):
        duet.detach(tiny)
    tiny.eval()
    tiny.zero_grad(set_to_none=True)


class DeepInputs:
    """Notes what comes out of each decoder layer, and what the next one gets."""

    def __init__(self, model):
        layers = model.model.language_model.layers
        self.left, self.entered = {}, {}
        self.handles = []
        for number, layer in enumerate(layers):
            self.handles.append(layer.register_forward_hook(self._leave(number)))
            self.handles.append(layer.self_attn.register_forward_pre_hook(self._enter(number), with_kwargs=True))

    def _leave(self, number):
        def hook(layer, args, output):
            self.left[number] = output.detach()

        return hook

    def _enter(self, number):
        def hook(layer, args, kwargs):
            self.entered[number] = kwargs["hidden_states"].detach()

        return hook

    def remove(self):
        for handle in self.handles:
            handle.remove()


@pytest.mark.parametrize("method", ["visionzip", "visionzip_c"])
@torch.no_grad()
def test_what_is_done_to_the_features_is_done_to_those_that_enter_deeper(tiny, method):
    """Every level of a merged token is the anchor's plus the mean of its members', at the anchor's column."""
    row = make_row((1, 4, 5), seed=3)
    duet.attach(tiny, method, Budget(5, 3, 2))
    seen = DeepInputs(tiny)
    with duet.record(tiny) as trace:
        tiny(**collate([row]))
    seen.remove()
    reduction = trace.reductions[0][0]
    output = tiny.model.visual(row.pixels["image"], grid_thw=row.grids["image"])
    kept, assign = reduction.kept[0], reduction.assign[0]
    order = kept.argsort()
    start = (row.ids == tiny.config.image_token_id).nonzero()[0, 0].item()
    assert len(output.deepstack_features) == len(DEEP)
    for level, features in enumerate(output.deepstack_features):
        wanted = features[kept].clone()
        for slot, anchor in enumerate(kept.tolist()):
            members = [token for token in (assign == slot).nonzero().flatten().tolist() if token != anchor]
            if members:
                wanted[slot] += features[members].mean(0)
        torch.testing.assert_close(reduction.deep[level][0], wanted, atol=1e-5, rtol=0)
        norm = tiny.model.language_model.layers[level + 1].input_layernorm
        entered = norm(seen.left[level][0, start : start + len(kept)] + wanted[order])
        torch.testing.assert_close(seen.entered[level + 1][0, start : start + len(kept)], entered, atol=1e-4, rtol=0)
    words = norm(seen.left[0][0, :start])
    assert words.shape[1] == 32
    for level in range(len(DEEP)):
        norm = tiny.model.language_model.layers[level + 1].input_layernorm
        torch.testing.assert_close(seen.entered[level + 1][0, :start], norm(seen.left[level][0, :start]))


@torch.no_grad()
def test_tokens_that_leave_early_leave_with_what_was_to_be_added(tiny):
    duet.attach(tiny, "duet", EARLY)
    row = make_row((1, 4, 4), (2, 3, 4), seed=5)
    seen = DeepInputs(tiny)
    with duet.record(tiny) as trace:
        tiny(**collate([row]))
    seen.remove()
    assert [stage.boundary for stage in trace.stages] == [1, 2]
    words = len(row.ids) - trace.full[0]
    for stage in trace.stages:
        assert seen.entered[stage.boundary].shape[1] == words + len(stage.kept[0])


def edits(method):
    """Whether it has quotas or merged tokens inside the decoder."""
    return method.pruner is not None and hasattr(method.pruner.factory, "edit")


def reachable(method):
    """Whether the tower can give what stage 1 reads; tokens merged inside the decoder are in no trace."""
    if edits(method):
        return False
    if method.reducer is None:
        return True
    scored = {"score": "column_mean"} if "score" in method.reducer.options() else {}
    return method.reducer.build(**scored).needs <= QwenVision.provides | {"projected", "text_tokens"}


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if reachable(method)])
@torch.no_grad()
def test_every_method_decodes_what_recomputing_gives(tiny, name):
    """A video and a picture, with drops before and after the last features are added."""
    stages = METHODS[name].stages
    stage2 = {"layers": (2, 4), "ratios": (0.6, 0.25)} if 2 in stages else {}
    stage1 = {"dominant": 4, "contextual": 2 if "duet" in name or "zip" in name else 0} if 1 in stages else {}
    duet.attach(tiny, name, Budget(**stage1, **stage2), tokenizer=tiny_tokenizer())
    row = mixed_rows()[2]
    with duet.record(tiny) as trace:
        out = tiny.generate(
            **collate([row]), max_new_tokens=4, do_sample=False, suppress_tokens=[*range(END, VOCAB)],
            output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
    assert len(trace.stages) == len(stage2.get("layers", ()))
    wanted = recompute(tiny, row, trace, out.sequences[0, len(row.ids) :])[:-1]
    torch.testing.assert_close(torch.cat(out.logits), wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if edits(method)])
@torch.no_grad()
def test_methods_that_edit_inside_the_decoder(tiny, name):
    """Tokens merge while features are still to be added: rows alone, and decoding against a forward without cache."""
    stage1 = {"dominant": 4} if 1 in METHODS[name].stages else {}
    duet.attach(tiny, name, Budget(**stage1, layers=(1, 2), ratios=(0.6, 0.25)), tokenizer=tiny_tokenizer())
    check_rows_alone(tiny, mixed_rows(), collate, "left", {"atol": 1e-4, "rtol": 0})
    row = mixed_rows()[2]
    out = tiny.generate(
        **collate([row]), max_new_tokens=4, do_sample=False, suppress_tokens=[*range(END, VOCAB)],
        output_logits=True, return_dict_in_generate=True,
    )  # fmt: skip
    wanted = recomputed(tiny, row, out.sequences[0, len(row.ids) :], collate)
    torch.testing.assert_close(torch.cat(out.logits), wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_none_is_stock_bit_for_bit_in_half_precision(dtype):
    model = tiny_qwen3().to(dtype)
    batch = {name: x.to(dtype) if x.is_floating_point() else x for name, x in collate(mixed_rows()).items()}
    wanted = model(**batch).logits
    real = batch["attention_mask"].bool()
    assert torch.equal(duet.attach(model, "none")(**batch).logits[real], wanted[real])


@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_rows_keep_their_own_features_when_tokens_leave_early(tiny, side):
    duet.attach(tiny, "duet", EARLY)
    check_rows_alone(tiny, mixed_rows(), collate, side, {"atol": 1e-4, "rtol": 0})


@torch.no_grad()
def test_queries_and_keys_are_those_of_the_layers_own_attention(tiny):
    """Scores of the last text token against the map that eager attention gives, in the ranking layer."""
    reference = tiny_qwen3()
    reference.set_attn_implementation("eager")
    row = make_row((1, 4, 4), seed=2)
    batch = collate([row])
    maps = reference(**batch, output_attentions=True).attentions
    duet.attach(tiny, "pyramiddrop", Budget(layers=(3,), ratios=(0.5,)))
    with duet.record(tiny) as trace:
        tiny(**batch)
    visual = row.ids == tiny.config.image_token_id
    wanted = maps[3][0].mean(0)[-1][visual]
    torch.testing.assert_close(trace.stages[0].scores[0], wanted, atol=1e-5, rtol=0)


@torch.no_grad()
def test_frames_are_units_and_times_between_them_are_words(tiny):
    """A unit for each frame, its own ids before it, and all of a video's tokens in one ranking."""
    duet.attach(tiny, "duet", BUDGET)
    row = make_row((3, 3, 4), (1, 2, 2), seed=3)
    with duet.record(tiny) as trace:
        tiny(**collate([row]))
    assert [unit.assign.shape[1] for unit in trace.reductions[0]] == [12, 12, 12, 4]
    assert trace.full == [40] and trace.entered == [22]
    assert [len(stage.kept[0]) for stage in trace.stages] == [13, 5]
    # words between frames stay
    assert trace.lengths[0] == [len(row.ids) - 40 + 22]


def test_gradients_reach_every_level(tiny):
    tiny.train()
    duet.attach(tiny, "duet", EARLY)
    tiny(**collate(mixed_rows(answer=3), labels=True)).loss.backward()
    for merger in tiny.model.visual.deepstack_merger_list:
        assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in merger.parameters())


def test_nothing_of_a_call_stays_on_the_model(tiny):
    duet.attach(tiny, "duet", BUDGET)
    before = set(vars(tiny.model.language_model))
    with torch.no_grad():
        tiny(**collate(mixed_rows()))
    assert set(vars(tiny.model.language_model)) == before
    assert attached(tiny).compression.budget == BUDGET
