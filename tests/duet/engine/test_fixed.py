"""`cache_implementation="static"`: the answers of the growing cache, one compilation per bucket."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import CompileConfig

import duet
from duet.engine.attachment import attached
from duet.engine.fixed import BUCKET, FixedCache, bucket
from tests.duet.engine.cases import CASES
from tests.duet.engine.test_generate import rows
from tests.families import FAMILIES
from tests.tiny_llava import Row, collate, make_row, prompt_of, tiny_llava

LOGITS = {"atol": 3e-4, "rtol": 0}
STATIC = {"cache_implementation": "static"}
WAYS = {
    "greedy": {"do_sample": False},
    "sampled": {"do_sample": True, "top_k": 0, "num_return_sequences": 2},
    "beams": {"do_sample": False, "num_beams": 3},
}


def answers(model: Any, batch: dict[str, Tensor], **options: Any) -> Any:
    torch.manual_seed(0)
    asked = {"max_new_tokens": 5, "do_sample": False, **options}
    return model.generate(**batch, **asked, output_logits=True, return_dict_in_generate=True)


def compiling(**options: Any) -> dict[str, Any]:
    """Options of `generate` that compile on a CPU, without code for it."""
    config = CompileConfig(backend="eager", **options)
    config._compile_all_devices = True
    return {**STATIC, "compile_config": config}


def compilations() -> int:
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


@pytest.fixture
def fresh():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def test_buckets_leave_at_most_an_eighth_empty():
    assert [bucket(n) for n in (1, 64, 65, 640, 641, 2000)] == [64, 64, 128, 640, 704, 2048]
    for tokens in range(1, 9000, 7):
        size = bucket(tokens)
        assert tokens <= size < tokens + max(BUCKET, tokens / 7)
        assert bucket(size) == size


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_answers_as_with_the_growing_cache(name, way):
    family = FAMILIES[name]
    for method in ("none", "duet", "pyramiddrop"):
        model = family.attach(family.build(), method)
        for side in ("left", "right"):
            batch = family.collate(family.prompts, side)
            wanted = answers(model, batch, **WAYS[way])
            found = answers(model, batch, **WAYS[way], **STATIC)
            assert type(found.past_key_values) is FixedCache
            assert torch.equal(found.sequences, wanted.sequences)
            torch.testing.assert_close(torch.cat(found.logits), torch.cat(wanted.logits), **LOGITS)


@pytest.mark.parametrize("name", CASES)
def test_every_shape_answers_as_with_the_growing_cache(tiny, name):
    CASES[name].attach(tiny)
    for attention in ("sdpa", "eager"):
        tiny.set_attn_implementation(attention)
        wanted, found = answers(tiny, collate(rows())), answers(tiny, collate(rows()), **STATIC)
        assert torch.equal(found.sequences, wanted.sequences)
        torch.testing.assert_close(torch.cat(found.logits), torch.cat(wanted.logits), **LOGITS)
    tiny.set_attn_implementation("sdpa")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_proportional_attention(tiny, attention):
    duet.attach(tiny, "duet", CASES["duet_c"].budget, attention="proportional")
    tiny.set_attn_implementation(attention)
    try:
        for way in WAYS.values():
            wanted, found = answers(tiny, collate(rows()), **way), answers(tiny, collate(rows()), **way, **STATIC)
            assert found.past_key_values.rooms.bias
            assert torch.equal(found.sequences, wanted.sequences)
            torch.testing.assert_close(torch.cat(found.logits), torch.cat(wanted.logits), **LOGITS)
        for cache in (wanted.past_key_values, found.past_key_values):
            cache.crop(-8)  # into the prompt
        word = {"input_ids": torch.full((9, 2 * BUCKET), 41), "past_key_values": wanted.past_key_values}
        with torch.no_grad():
            wanted = tiny(**word).logits
            found = tiny(**{**word, "past_key_values": found.past_key_values}).logits
        torch.testing.assert_close(found, wanted, **LOGITS)
    finally:
        tiny.set_attn_implementation("sdpa")


def test_the_setting_of_the_model_is_enough(tiny):
    CASES["duet"].attach(tiny)
    tiny.generation_config.cache_implementation = "static"
    try:
        assert type(answers(tiny, collate(rows())).past_key_values) is FixedCache
        text = prompt_of(make_row(0, seed=4))  # no pictures: stock's own
        ids = text.ids[None]
        assert type(answers(tiny, {"input_ids": ids}).past_key_values).__name__ == "StaticCache"
    finally:
        tiny.generation_config.cache_implementation = None


def test_a_layer_holds_no_more_than_its_bucket(tiny):
    duet.attach(tiny, "duet", CASES["duet"].budget)
    cache = answers(tiny, collate([prompt_of(make_row(3, 60, seed=1))]), **STATIC).past_key_values
    assert [layer.keys.shape[2] for layer in cache.layers] == [
        bucket(cache.segment_of(number).width + 4) for number in range(len(cache.layers))
    ]


@torch.no_grad()
def test_a_second_turn_grows_past_the_bucket(tiny):
    CASES["duet_c"].attach(tiny)
    prompt = collate([prompt_of(make_row(2, seed=8))])
    first, static = answers(tiny, prompt), answers(tiny, prompt, **STATIC)
    turn = torch.arange(10, 10 + 2 * BUCKET)[None] % 90
    for one in (turn, turn[:, :1], turn[:, :3]):
        wanted = tiny(input_ids=one, past_key_values=first.past_key_values).logits
        found = tiny(input_ids=one, past_key_values=static.past_key_values).logits
        torch.testing.assert_close(found, wanted, **LOGITS)


@torch.no_grad()
def test_padded_turns(tiny):
    CASES["keep"].attach(tiny)
    batch = collate(rows())
    first, static = answers(tiny, batch), answers(tiny, batch, **STATIC)
    mask = torch.cat([batch["attention_mask"], torch.ones(3, 4).long()], 1)
    for marks in ([[1, 1, 1], [0, 0, 1], [0, 1, 1]], [[1], [1], [1]]):
        new = torch.tensor(marks)
        mask = torch.cat([mask, new], 1)
        turn = torch.full(new.shape, 41)
        positions = (mask.cumsum(1) - 1).clamp_min(0)[:, -new.shape[1] :]
        given = {"input_ids": turn, "attention_mask": mask, "position_ids": positions}
        wanted = tiny(**given, past_key_values=first.past_key_values).logits
        found = tiny(**given, past_key_values=static.past_key_values).logits
        torch.testing.assert_close(found[:, -1], wanted[:, -1], **LOGITS)


@torch.no_grad()
def test_the_cache_follows_rows_and_cuts(tiny):
    CASES["duet"].attach(tiny)
    batch = collate(rows())
    word, order = torch.tensor([[51], [52], [53]]), torch.tensor([2, 0, 1])
    mask = torch.cat([batch["attention_mask"], torch.ones(3, 5).long()], 1)
    static = answers(tiny, batch, **STATIC).past_key_values

    def step(cache: Any, rows: Tensor) -> Tensor:
        return tiny(input_ids=word[rows], attention_mask=mask[rows], past_key_values=cache).logits

    wanted = step(deepcopy(static), torch.arange(3))
    for change, rows_ in (
        (lambda cache: cache.reorder_cache(order), order),
        (lambda cache: cache.batch_select_indices(torch.tensor([2, 1])), torch.tensor([2, 1])),
        (lambda cache: cache.batch_repeat_interleave(2), torch.arange(3).repeat_interleave(2)),
    ):
        changed = deepcopy(static)
        change(changed)
        torch.testing.assert_close(step(changed, rows_), wanted[rows_], **LOGITS)
    whole = {"input_ids": word, "attention_mask": mask}
    before = deepcopy(static)
    tiny(**whole, past_key_values=static)
    static.crop(-1)
    torch.testing.assert_close(tiny(**whole, past_key_values=static).logits, wanted, **LOGITS)
    before.crop(-6)  # into the prompt
    growing = answers(tiny, batch).past_key_values
    growing.crop(-6)
    short = {"input_ids": word, "attention_mask": torch.cat([mask[:, :-6], torch.ones(3, 1).long()], 1)}
    wanted = tiny(**short, past_key_values=growing).logits
    torch.testing.assert_close(tiny(**short, past_key_values=before).logits, wanted, **LOGITS)
    before.reset()
    assert type(before).__name__ == "DynamicCache"


def prompts(count: int) -> list[Row]:
    """Prompts of different lengths and pictures in one bucket."""
    return [prompt_of(make_row(1 + number % 2, 3 + number, seed=number)) for number in range(count)]


@pytest.mark.parametrize("name", ["duet", "late_keep"])
def test_a_step_is_compiled_once_per_bucket(fresh, name):
    model = CASES[name].attach(tiny_llava())
    once = compiling(fullgraph=True)
    wanted = [answers(model, collate([row])) for row in prompts(5)]
    for row, other in zip(prompts(5), wanted, strict=True):
        found = answers(model, collate([row]), **once)
        assert torch.equal(found.sequences, other.sequences)
        torch.testing.assert_close(torch.cat(found.logits), torch.cat(other.logits), **LOGITS)
    assert compilations() == 1
    padded = collate(rows())
    answers(model, padded, **once)  # another number of rows
    assert compilations() == 2
    answers(model, {**padded, "attention_mask": padded["attention_mask"].bool()}, **once)
    assert compilations() == 2
    answers(model, collate(prompts(1)), max_new_tokens=BUCKET + 1, **once)  # another bucket
    assert compilations() == 3
    answers(model, collate(prompts(1)), **once)
    answers(model, collate(rows()), **once)
    assert compilations() == 3
    assert not torch._dynamo.utils.counters["graph_break"]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_compiles_in_one_piece(fresh, name):
    family = FAMILIES[name]
    model = family.attach(family.build())
    batch = family.collate(family.prompts, "left")
    wanted = answers(model, batch)
    found = answers(model, batch, **compiling(fullgraph=True))
    assert torch.equal(found.sequences, wanted.sequences)
    assert compilations() == 1


@pytest.mark.parametrize("options", [{}, STATIC])
@pytest.mark.parametrize("name", ["duet_c", "late_and_gone"])
def test_rotary_tables_are_made_once_per_step(tiny, name, options):
    CASES[name].attach(tiny)
    made: list[Any] = []
    handle = tiny.model.language_model.rotary_emb.register_forward_hook(lambda *_: made.append(1))
    found = []
    for new in (2, 5):
        answers(tiny, collate(prompts(1)), max_new_tokens=new, **options)
        found.append(len(made))
        made.clear()
    handle.remove()
    assert found[1] - found[0] == 3


def test_the_next_answer_uses_the_memory_of_the_last(fresh):
    model = CASES["duet"].attach(tiny_llava())
    batches = [collate([row]) for row in prompts(3)]
    places = []
    for batch in batches:
        out = answers(model, batch, **compiling())
        places.append([layer.keys.data_ptr() for layer in out.past_key_values.layers])
        del out
    assert places[0] == places[1] == places[2]
    kept = [answers(model, batch, **compiling()) for batch in batches[:2]]
    first, second = ([layer.keys.data_ptr() for layer in out.past_key_values.layers] for out in kept)
    assert not set(first) & set(second)
    free = attached(model).steps.free
    duet.detach(model)
    assert sum(map(len, free.values())) == 0
    del kept
    assert sum(map(len, free.values())) == 2


def test_collected_states_are_not_compiled(fresh):
    model = CASES["duet"].attach(tiny_llava())
    batch = collate(prompts(1))
    out = answers(model, batch, output_hidden_states=True, **compiling())
    assert compilations() == 0
    assert len(out.hidden_states) == 5 and len(out.hidden_states[1]) == 7


def test_no_other_kernels(tiny):
    CASES["duet"].attach(tiny)
    tiny.set_attn_implementation("flex_attention")
    try:
        with pytest.raises(ValueError, match="needs attn_implementation='sdpa' or 'eager', not 'flex_attention'"):
            answers(tiny, collate(rows()), **STATIC)
    finally:
        tiny.set_attn_implementation("sdpa")


def test_a_copied_model_decodes_with_the_same_steps():
    model = CASES["duet"].attach(tiny_llava())
    batch = collate(rows())
    wanted = answers(model, batch, **STATIC).sequences
    assert torch.equal(answers(deepcopy(model), batch, **STATIC).sequences, wanted)
