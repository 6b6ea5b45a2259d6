"""Properties of the Qwen adapter on tiny random models: rows, padding, videos, decoding, gradients, stock behaviour."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import duet
from duet.backbones import qwen
from duet.budget import Budget
from duet.engine.attachment import is_attached
from duet.errors import UserError
from duet.ops import scores as ops
from tests import tiny_qwen3
from tests.duet.qwen2_5_vl.plain import recompute
from tests.tiny_parts import check_rows_alone
from tests.tiny_qwen import BUDGET, END, IMAGE, VOCAB, collate, make_row, mixed_rows, tiny_qwen

LOGITS = {"atol": 1e-4, "rtol": 0}
CASES = {
    "none": ("none", None, {}),
    "visionzip": ("visionzip", BUDGET.only(1), {}),
    "visionzip_c": ("visionzip_c", BUDGET.only(1), {}),
    "pyramiddrop": ("pyramiddrop", BUDGET.only(2), {}),
    "duet": ("duet", BUDGET, {}),
    "ending": ("duet", Budget(4, 2, layers=(0.5, 0.75), ratios=(0.5, 0.0)), {}),
    "paper": ("duet", BUDGET, {"contextual_merge": "paper"}),
    "compounding": ("duet", BUDGET, {"ratio_base": "compounding"}),
    "renumber": ("duet", BUDGET, {"positions": "renumber"}),
}
KEEPING = [name for name in CASES if name != "renumber"]


@pytest.fixture(scope="module")
def tiny():
    return tiny_qwen()


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen2_vl", "qwen3_vl"])
def family(request):
    if request.param == "qwen3_vl":
        return tiny_qwen3.tiny_qwen3(tie=True)
    return tiny_qwen(request.param, tie=request.param == "qwen2_vl")


def rows_of(model):
    """Prompts as the model's processor writes them."""
    return tiny_qwen3.mixed_rows() if model.config.model_type == "qwen3_vl" else mixed_rows()


@pytest.fixture(autouse=True)
def stock_again(request):
    yield
    for name in {"tiny", "family"} & set(request.fixturenames):
        model = request.getfixturevalue(name)
        if is_attached(model):
            duet.detach(model)
        model.eval()
        model.zero_grad(set_to_none=True)


def attach(model, name):
    method, budget, switches = CASES[name]
    return duet.attach(model, method, budget, **switches)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_a_row_does_not_depend_on_its_neighbours(family, name, side):
    attach(family, name)
    check_rows_alone(family, rows_of(family), collate, side, LOGITS)


@torch.no_grad()
def test_none_is_stock_bit_for_bit_and_so_is_a_detached_model(family):
    batch = collate(rows_of(family))
    wanted = family(**batch).logits
    tokens = family.generate(**batch, max_new_tokens=4, do_sample=False)
    duet.attach(family, "none")
    logits = family(**batch).logits
    assert torch.equal(logits[batch["attention_mask"].bool()], wanted[batch["attention_mask"].bool()])
    assert torch.equal(family.generate(**batch, max_new_tokens=4, do_sample=False), tokens)
    attach(family, "duet")
    assert not torch.equal(family(**batch).logits, wanted)
    duet.detach(family)
    assert torch.equal(family(**batch).logits, wanted)


@torch.no_grad()
def test_a_batch_of_text_is_stock(tiny):
    text = collate([make_row(text=5, seed=1), make_row(text=9, seed=2)])
    wanted, tokens = tiny(**text).logits, tiny.generate(**text, max_new_tokens=4, do_sample=False)
    attach(tiny, "duet")
    assert torch.equal(tiny(**text).logits, wanted)
    assert torch.equal(tiny.generate(**text, max_new_tokens=4, do_sample=False), tokens)


@pytest.mark.parametrize("name", KEEPING)
@torch.no_grad()
def test_greedy_decoding_equals_recomputing(family, name):
    attach(family, name)
    for row in rows_of(family):
        if not any(map(len, row.pixels.values())):
            continue
        with duet.record(family) as trace:
            out = family.generate(
                **collate([row]), max_new_tokens=5, do_sample=False, suppress_tokens=[*range(END, VOCAB)],
                output_logits=True, return_dict_in_generate=True,
            )  # fmt: skip
        new = out.sequences[0, len(row.ids) :]
        wanted = recompute(family, row, trace, new)[:-1]
        torch.testing.assert_close(torch.cat(out.logits), wanted, **LOGITS)
        assert new.tolist() == wanted[:, :END].argmax(-1).tolist()


@pytest.mark.parametrize("name", ["none", "visionzip_c", "renumber", "duet"])
@torch.no_grad()
def test_greedy_tokens_and_beams_of_a_row_do_not_depend_on_its_neighbours(tiny, name):
    rows = mixed_rows()
    attach(tiny, name)
    for beams in (1, 3):
        options = {"max_new_tokens": 5, "do_sample": False, "num_beams": beams}
        together = tiny.generate(**collate(rows), **options)[:, -5:]
        alone = [tiny.generate(**collate([row]), **options)[0, -5:] for row in rows]
        assert together.tolist() == torch.stack(alone).tolist()


@torch.no_grad()
def test_beams_score_what_recomputing_scores(tiny):
    attach(tiny, "duet")
    rows = [mixed_rows()[index] for index in (0, 2)]
    out = tiny.generate(
        **collate(rows), max_new_tokens=4, num_beams=3, do_sample=False, num_return_sequences=2,
        suppress_tokens=[*range(END, VOCAB)], output_scores=True, return_dict_in_generate=True,
    )  # fmt: skip
    for number, (ids, score) in enumerate(zip(out.sequences, out.sequences_scores, strict=True)):
        row, new = rows[number // 2], ids[-4:]
        with duet.record(tiny) as trace:
            tiny(**collate([row]))
        steps = recompute(tiny, row, trace, new)[:-1].log_softmax(-1)  # of all words: scores leave ids out afterwards
        torch.testing.assert_close(score, steps.gather(1, new[:, None]).sum() / 4, **LOGITS)


@pytest.mark.parametrize("name", ["duet", "visionzip_c"])
@torch.no_grad()
def test_a_second_turn_on_the_same_cache_equals_recomputing(tiny, name):
    attach(tiny, name)
    row, words = mixed_rows()[2], torch.tensor([11, 12, 13])
    with duet.record(tiny) as trace:
        cache = tiny(**collate([row])).past_key_values
    logits = tiny(input_ids=words[None], past_key_values=cache).logits[0]
    torch.testing.assert_close(logits, recompute(tiny, row, trace, words)[-3:], **LOGITS)
    assert cache.get_seq_length() == len(row.ids) + 3


@torch.no_grad()
def test_token_types_are_found_from_the_placeholders(tiny):
    attach(tiny, "duet")
    batch = collate(mixed_rows())
    wanted = tiny(**batch).logits
    del batch["mm_token_type_ids"]
    assert torch.equal(tiny(**batch).logits, wanted)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_loss_and_gradients_reach_tower_and_decoder(side, checkpointing):
    model = tiny_qwen().train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    rows = mixed_rows(answer=3)
    attach(model, "duet")
    loss = model(**collate(rows, side, labels=True)).loss
    loss.backward()
    alone = [model(**collate([row], labels=True)).loss for row in rows]
    torch.testing.assert_close(loss, torch.stack(alone).mean(), atol=1e-5, rtol=0)
    for part in (model.model.visual.patch_embed, model.model.visual.merger, model.model.language_model.layers[-1]):
        assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in part.parameters())


@torch.no_grad()
def test_counts_are_cut_to_what_a_picture_has(tiny):
    attach(tiny, "visionzip_c")
    with duet.record(tiny) as trace:
        tiny(**collate(mixed_rows()))
    assert [[unit.kept.shape[1] for unit in row] for row in trace.reductions] == [[6, 6], [], [6, 6, 6, 6], [1], [6]]
    duet.attach(tiny, "visionzip_c", Budget(dominant=14, contextual=3))
    with duet.record(tiny) as trace:
        tiny(**collate(mixed_rows()))
    assert [[unit.kept.shape[1] for unit in row] for row in trace.reductions] == [[15, 16], [], [12] * 4, [1], [17]]


@torch.no_grad()
def test_a_video_is_ranked_as_a_whole_and_reductions_come_in_prompt_order(tiny):
    attach(tiny, "duet")
    row = make_row((2, 3, 4), (1, 2, 2), seed=3)
    with duet.record(tiny) as trace:
        tiny(**collate([row]))
    assert [unit.assign.shape[1] for unit in trace.reductions[0]] == [12, 12, 4]
    assert trace.entered == [16]
    assert [len(stage.kept[0]) for stage in trace.stages] == [9, 4]


@torch.no_grad()
def test_scores_are_those_of_the_towers_own_maps(family):
    """Column sums, keys and rows against whole attention maps, picture by picture."""
    row = make_row((1, 3, 5), (1, 4, 4), (1, 3, 5), seed=5)
    batch = collate([row])
    tower = family.model.visual
    needs = frozenset({"received_attention", "keys", "attention_rows"})
    groups = qwen.encode(tower, batch["pixel_values"], batch["image_grid_thw"], needs)
    assert [group.grid for group in groups] == [(1, 3, 5), (1, 4, 4)]
    reference = deepcopy(family)
    reference.set_attn_implementation("eager")
    for number, (group, index) in enumerate([(0, 0), (1, 0), (0, 1)]):
        states, grid = groups[group], batch["image_grid_thw"][number : number + 1]
        ends = batch["image_grid_thw"].prod(1).cumsum(0).tolist()
        pixels = batch["pixel_values"][([0, *ends])[number] : ends[number]]
        out = reference.model.visual(pixels, grid_thw=grid, output_attentions=True)
        torch.testing.assert_close(states.features[index], out.pooler_output, atol=1e-4, rtol=0)
        maps = last_map(reference.model.visual, pixels, grid)
        tokens = states.features.shape[1]
        by_token = maps.mean(0).reshape(tokens, 4, tokens, 4)
        received = by_token.sum((0, 1)).mean(1)
        torch.testing.assert_close(states.scores["received_attention"][index], received, atol=1e-5, rtol=0)
        rows = states.attention_rows(torch.arange(3).expand(len(states.features), -1))[index]
        torch.testing.assert_close(rows, by_token.mean(1).sum(2)[:3], atol=1e-5, rtol=0)
        assert states.keys.shape[1:] == (tokens, 8)


def last_map(tower, pixels, grid):
    """Attention probabilities `[H, M, M]` of the last block on one picture, patches in raster order of their tokens."""
    seen = {}

    def note(module, args, kwargs):
        seen.update(kwargs, hidden=args[0])

    handle = tower.blocks[-1].attn.register_forward_pre_hook(note, with_kwargs=True)
    tower(pixels, grid_thw=grid)
    handle.remove()
    attn = tower.blocks[-1].attn
    q, k, _ = attn.qkv(seen["hidden"]).reshape(len(pixels), 3, attn.num_heads, -1).unbind(1)
    cos, sin = (table[:, None] for table in seen["position_embeddings"])

    def turned(x):
        first, second = x.chunk(2, -1)
        return x * cos + torch.cat([-second, first], -1) * sin

    maps = torch.einsum("qhd,khd->hqk", turned(q), turned(k)).mul(attn.scaling).softmax(-1)
    _, height, width = grid[0].tolist()
    order = torch.arange(len(pixels))
    if hasattr(tower, "fullatt_block_indexes"):
        places = qwen.window_order(height // 2, width // 2, 2).argsort()
        order = (places[:, None] * 4 + torch.arange(4)).flatten()
    return maps[:, order][:, :, order]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4))
def test_windows_are_ordered_as_in_transformers(height, width, window):
    from transformers.vision_utils import get_vision_window_index

    grid = torch.tensor([[1, height * 2, width * 2]])
    wanted, _ = get_vision_window_index(grid, spatial_merge_size=2, window_size=window * 2 * 14, patch_size=14)
    assert qwen.window_order(height, width, window).tolist() == wanted.tolist()


@torch.no_grad()
def test_a_large_picture_never_has_its_whole_map(tiny, monkeypatch):
    seen = []
    whole = ops.attention_probabilities

    def watched(*args):
        found = whole(*args)
        seen.append(found.numel())
        return found

    monkeypatch.setattr(ops, "attention_probabilities", watched)
    row = make_row((1, 32, 32), seed=2)
    duet.attach(tiny, "visionzip_c", Budget(dominant=20, contextual=5))
    tiny(**collate([row]))
    patches = 4 * 1024
    assert sum(seen) == 4 * patches**2
    assert max(seen) <= 2**25 < sum(seen)


def test_budgets_in_shares_of_depth_fit_models_of_any_depth():
    for layers, wanted in ((4, [2, 3]), (8, [4, 6])):
        model = tiny_qwen(layers=layers, tie=True)
        attach(model, "ending")
        with duet.record(model) as trace, torch.no_grad():
            model(**collate(mixed_rows()))
        assert [stage.boundary for stage in trace.stages] == wanted


def test_what_does_not_fit_is_refused(tiny):
    with pytest.raises(UserError, match="column_mean"):
        duet.attach(tiny, "visionzip", BUDGET.only(1), score="cls_row")
    windowed = tiny_qwen()
    windowed.config.text_config.layer_types[-1] = "sliding_attention"
    with pytest.raises(UserError, match="sliding window"):
        attach(windowed, "duet")
    attach(tiny, "duet")
    batch = collate([make_row((1, 3, 5))])
    with pytest.raises(ValueError, match="patches do not match the grid"):
        tiny(**{**batch, "pixel_values": batch["pixel_values"][:-1]})
    with pytest.raises(ValueError, match="image_grid_thw"):
        tiny(**{**batch, "image_grid_thw": None})
    ids = batch["input_ids"].clone()
    ids[0, (ids[0] == IMAGE).nonzero()[0]] = 5
    with pytest.raises(ValueError, match="placeholders"):
        tiny(**{**batch, "input_ids": ids, "mm_token_type_ids": None})


def test_generate_has_to_know_the_visual_tokens(tiny):
    attach(tiny, "duet")
    batch = collate([make_row((1, 3, 5))])
    del batch["mm_token_type_ids"]
    with pytest.raises(ValueError, match="mm_token_type_ids"):
        tiny.generate(**batch, max_new_tokens=2)
