"""`duet.compile`: the logits, answers and caches of the model as it is, in one piece, compiled once per length."""

from __future__ import annotations

import pickle
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor

import duet
from duet.budget import Budget
from duet.engine.fixed import FixedCache
from duet.engine.plan import STEP, padded
from duet.errors import UserError
from duet.ops.regions import Code
from tests.duet.engine.cases import CASES
from tests.duet.engine.test_fixed import LOGITS, answers, compilations
from tests.duet.engine.test_generate import rows
from tests.families import FAMILIES
from tests.host_reads import HostReads, on_accelerator
from tests.tiny_llava import collate, make_row, prompt_of, tiny_llava


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    assert not torch._dynamo.utils.counters["graph_break"]
    torch._dynamo.reset()


@pytest.fixture
def uncompiled(monkeypatch):
    """The same path, without the compiler: a region runs as the function that it is."""
    monkeypatch.setattr(Code, "get", lambda self, function, key, options: function)


def prompt(words: int = 5, seed: int = 1) -> dict[str, Tensor]:
    return collate([prompt_of(make_row(1, words, seed=seed))])


@torch.no_grad()
def same(model: Any, batch: dict[str, Tensor], **options: Any) -> None:
    """The compiled model gives the logits and the cache of the model as it is."""
    wanted = model(**batch, use_cache=True)
    found = duet.compile(model, backend="eager", **options)(**batch, use_cache=True)
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(found.logits[real], wanted.logits[real], **LOGITS)
    ours, theirs = found.past_key_values, wanted.past_key_values
    for one, other in zip(ours.prompt.segments, theirs.prompt.segments, strict=True):
        assert (one.start, one.width, one.renumbered) == (other.start, other.width, other.renumbered)
        assert torch.equal(one.lengths, other.lengths) and torch.equal(one.ends, other.ends)
        assert torch.equal(one.visual, other.visual)
    if len(batch["input_ids"]) == 1:  # rows of a batch are padded on the right, wherever they were before
        for one, other in zip(ours.layers, theirs.layers, strict=True):
            torch.testing.assert_close(one.keys, other.keys, **LOGITS)
            torch.testing.assert_close(one.values, other.values, **LOGITS)


OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES if name not in ("llava", "qwen2_5_vl")]


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", *OTHERS])
def test_every_family_in_one_piece(name):
    family = FAMILIES[name]
    model = family.attach(family.build())
    batch = family.collate(family.prompts, "left")
    wanted = answers(model, batch)
    found = answers(duet.compile(model, backend="eager"), batch)
    assert type(found.past_key_values) is FixedCache
    assert torch.equal(found.sequences, wanted.sequences)
    torch.testing.assert_close(torch.cat(found.logits), torch.cat(wanted.logits), **LOGITS)
    known = compilations()
    assert known >= 3  # stage 1, prompt, step; and CLIP's tower
    answers(model, batch)
    assert compilations() == known


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.usefixtures("uncompiled")
def test_every_family(name):
    family = FAMILIES[name]
    for method in ("none", "duet", "pyramiddrop", "visionzip"):
        model = family.attach(family.build(), method)
        for side in ("left", "right"):
            same(model, family.collate(family.prompts, side))
            model._duet.compiled = None


SLOWER = [
    pytest.param(name, marks=pytest.mark.slow)
    for name in ("paper", "keep", "guided_by_attention", "late_keep", "frozen_in_some")
]


@pytest.mark.parametrize("name", ["duet_c_s", *SLOWER])
def test_shapes(name):
    same(CASES[name].attach(tiny_llava()), collate(rows()))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("uncompiled")
def test_plans_of_every_shape(tiny, name):
    for side in ("left", "right"):
        for attention in ("sdpa", "eager"):
            tiny.set_attn_implementation(attention)
            for batch in (prompt(), collate(rows(), side)):
                same(CASES[name].attach(tiny), batch)
    tiny.set_attn_implementation("sdpa")


@pytest.mark.parametrize("method", ["fastv", "fitprune", "random_rank", "inverted"])
@pytest.mark.usefixtures("uncompiled")
def test_other_ranks(method):
    same(duet.attach(tiny_llava(), method, Budget(layers=(2,), ratios=(0.5,))), prompt())


@pytest.mark.usefixtures("uncompiled")
def test_proportional_attention():
    same(duet.attach(tiny_llava(), "duet", CASES["duet_c"].budget, attention="proportional"), prompt())


@torch.no_grad()
def test_prompts_of_about_one_length_share_code():
    model = CASES["duet_c_all"].attach(tiny_llava())
    wanted = {words: answers(model, prompt(words, words)).sequences for words in (1, 4, 9, 13)}
    duet.compile(model, backend="eager")
    for words, other in wanted.items():
        assert torch.equal(answers(model, prompt(words, words)).sequences, other)
        assert compilations() == 5  # tower, stage 1, projector, prompt, step
    answers(model, prompt(STEP + 9))
    assert compilations() == 6
    answers(model, prompt(1))
    assert compilations() == 6


def test_lengths_are_padded_by_32_tokens_or_an_eighth():
    assert [padded(n) for n in (1, 32, 33, 300, 513, 2000)] == [32, 32, 64, 320, 576, 2048]
    for tokens in range(1, 5000, 7):
        assert tokens <= padded(tokens) < tokens + max(STEP, tokens / 7) and padded(padded(tokens)) == padded(tokens)


@torch.no_grad()
def test_weights_are_read_where_they_are():
    """A captured graph copies its inputs, but not those that stay in place."""
    seen: list[list[Tensor]] = []

    def keep(graph: Any, inputs: list[Tensor]) -> Any:
        seen.append([one for one in inputs if isinstance(one, torch.nn.Parameter)])
        return graph.forward

    model = CASES["duet"].attach(tiny_llava())
    duet.compile(model, backend=keep)(**prompt())
    weights = [one for graph in seen for one in graph]
    assert len(weights) > len(list(model.model.language_model.parameters())) - 2
    assert all(hasattr(one, "_dynamo_static_input_type") for one in weights)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.usefixtures("uncompiled")
@torch.no_grad()
def test_inside_a_region_nothing_waits_or_moves(name, monkeypatch):
    """One read of the prompt before it, and inside no tensor of the host, which a graph cannot be captured with."""
    family = FAMILIES[name]
    model = on_accelerator(family.attach(family.build()))
    duet.compile(model)
    ran = set()

    def watched(self: Code, function: Any, key: Any, options: Any) -> Any:
        def run(*args: Any) -> Any:
            ran.add(function.__name__)
            reads.watching = True
            try:
                return function(*args)
            finally:
                reads.watching = False

        return run

    monkeypatch.setattr(Code, "get", watched)
    batch = on_accelerator(family.collate(family.prompts))
    with HostReads() as reads:
        model(**batch, use_cache=True, logits_to_keep=1)
    assert {"_prompt", "_reduced"} <= ran
    assert sum(reads.own.values()) == 1, reads.own
    assert not reads.host


@torch.no_grad()
def test_attention_runs_without_masks():
    masks: list[Any] = []

    def keep(graph: Any, inputs: list[Tensor]) -> Any:
        calls = [node for node in graph.graph.nodes if "scaled_dot_product" in str(node.target)]
        masks.extend(node.kwargs.get("attn_mask") for node in calls)
        return graph.forward

    model = CASES["duet"].attach(tiny_llava())
    duet.compile(model, backend=keep)(**collate(rows()))
    assert len(masks) > len(model.model.language_model.layers) and set(masks) == {None}


def test_what_runs_as_before():
    model = duet.compile(CASES["duet"].attach(tiny_llava()), backend="eager")
    batch = prompt()
    model(**batch)  # with gradients
    with torch.no_grad():
        model(**batch, labels=batch["input_ids"])
        with duet.record(model):
            model(**batch)
        model.train()(**batch)
    assert compilations() == 0
    model.eval()
    with torch.no_grad():
        assert len(model(**batch, output_hidden_states=True).hidden_states) > 1
    assert compilations() == 3  # tower, stage 1, projector; the layers are collected one by one


def test_detaching_ends_it():
    model = duet.compile(CASES["duet"].attach(tiny_llava()), backend="eager")
    CASES["duet"].attach(model)
    answers(model, prompt())
    assert compilations() == 0
    with pytest.raises(ValueError, match=r"call duet\.attach first"):
        duet.compile(duet.detach(model) or model)


@pytest.mark.usefixtures("uncompiled")
def test_other_caches_when_asked():
    model = duet.compile(CASES["duet"].attach(tiny_llava()))
    found = answers(model, prompt(), cache_implementation="dynamic")
    assert type(found.past_key_values).__name__ == "ReducedCache"
    assert answers(model, prompt(), disable_compile=True).past_key_values.plan.options is None


def test_what_is_refused():
    model = tiny_llava()
    with pytest.raises(UserError, match="stage 2 of sparsevlm"):
        duet.compile(duet.attach(model, "sparsevlm", Budget(layers=(2,), ratios=(0.5,))))
    CASES["duet"].attach(model).set_attn_implementation("flex_attention")
    with pytest.raises(UserError, match="attn_implementation='sdpa' or 'eager', not 'flex_attention'"):
        duet.compile(model)


@pytest.mark.usefixtures("uncompiled")
def test_copies_and_pickles():
    model = duet.compile(CASES["duet"].attach(tiny_llava()))
    wanted = answers(model, prompt()).sequences
    for copied in (deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(answers(copied, prompt()).sequences, wanted)
    assert deepcopy(model)._duet.compiled.code is model._duet.compiled.code


def test_after_calls_of_the_stock_model():
    """They leave hooks on its layers, which look for a collector in a way that cannot be compiled."""
    model, batch = tiny_llava(), prompt()
    with torch.no_grad():
        model(**batch, output_hidden_states=True)
    CASES["duet"].attach(model)
    wanted = answers(model, batch)
    assert torch.equal(answers(duet.compile(model, backend="eager"), batch).sequences, wanted.sequences)
    assert compilations() == 5
    with torch.no_grad():
        assert len(model(**batch, output_hidden_states=True).hidden_states) == 7


@pytest.mark.slow
def test_with_generated_code():
    model = CASES["duet_c_all"].attach(tiny_llava())
    wanted = answers(model, prompt())
    found = answers(duet.compile(model), prompt())
    assert torch.equal(found.sequences, wanted.sequences)
    torch.testing.assert_close(torch.cat(found.logits), torch.cat(wanted.logits), **LOGITS)
