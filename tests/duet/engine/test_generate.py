"""`generate` and later turns on a shortened cache: always equal to the whole sequence recomputed without a cache."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import duet
from tests.duet.engine.cases import CASES, FEW
from tests.plain_duet import run
from tests.tiny_llava import Row, collate, make_row, prompt_of

LOGITS = {"atol": 1e-4, "rtol": 0}
GREEDY = {"max_new_tokens": 6, "do_sample": False}


def rows() -> list[Row]:
    return [prompt_of(make_row(pictures, text, seed)) for seed, (pictures, text) in enumerate([(1, 6), (0, 9), (3, 4)])]


def longer(row: Row, ids: Tensor) -> Row:
    return replace(row, ids=torch.cat([row.ids, ids]))


def recomputed(plain: Any, row: Row, name: str, new: Tensor) -> Tensor:
    """Logits `[S, V]` that predict each of the new tokens after a prompt."""
    whole = run(plain, longer(row, new), CASES[name].plan, prompt=len(row.ids))
    return whole.logits[-len(new) - 1 : -1]


@pytest.mark.parametrize("name", CASES)
def test_greedy_decoding_equals_recomputing(kind, name):
    model, plain, placeholders = kind
    row = prompt_of(make_row(2, seed=7, placeholders=placeholders))
    CASES[name].attach(model)
    out = model.generate(**collate([row]), **GREEDY, output_logits=True, return_dict_in_generate=True)
    new = out.sequences[0, len(row.ids) :]
    with torch.no_grad():
        wanted = recomputed(plain, row, name, new)
    torch.testing.assert_close(torch.cat(out.logits), wanted, **LOGITS)
    assert new.tolist() == wanted.argmax(-1).tolist()


@pytest.mark.parametrize("name", CASES)
def test_decoding_is_the_same_without_a_cache(tiny, name):
    CASES[name].attach(tiny)
    batch = collate(rows())
    assert torch.equal(tiny.generate(**batch, **GREEDY), tiny.generate(**batch, **GREEDY, use_cache=False))


@pytest.mark.parametrize("name", FEW)
def test_beams_score_what_recomputing_scores(tiny, plain, name):
    CASES[name].attach(tiny)
    batch = rows()
    out = tiny.generate(
        **collate(batch), max_new_tokens=5, num_beams=3, do_sample=False, length_penalty=1.0,
        num_return_sequences=2, output_scores=True, return_dict_in_generate=True,
    )  # fmt: skip
    start = out.sequences.shape[1] - 5
    for number, (ids, score) in enumerate(zip(out.sequences, out.sequences_scores, strict=True)):
        new = ids[start:]
        with torch.no_grad():
            steps = recomputed(plain, batch[number // 2], name, new).log_softmax(-1)
        wanted = steps.gather(1, new[:, None]).sum() / 5
        torch.testing.assert_close(score, wanted, **LOGITS)


@pytest.mark.parametrize("name", FEW)
def test_beams_of_a_row_do_not_depend_on_its_neighbours(tiny, name):
    CASES[name].attach(tiny)
    beams = {"max_new_tokens": 5, "num_beams": 3, "do_sample": False}
    together = tiny.generate(**collate(rows()), **beams)[:, -5:]
    alone = [tiny.generate(**collate([row]), **beams)[0, -5:] for row in rows()]
    assert together.tolist() == torch.stack(alone).tolist()


@pytest.mark.parametrize("name", FEW)
def test_sampled_sequences_have_the_probabilities_of_recomputing(tiny, plain, name):
    CASES[name].attach(tiny)
    sampling = {"max_new_tokens": 5, "do_sample": True, "top_k": 0, "num_return_sequences": 3}
    torch.manual_seed(0)
    out = tiny.generate(**collate(rows()), **sampling, output_logits=True, return_dict_in_generate=True)
    logits = torch.stack(out.logits, 1)
    for number, ids in enumerate(out.sequences):
        with torch.no_grad():
            wanted = recomputed(plain, rows()[number // 3], name, ids[-5:])
        torch.testing.assert_close(logits[number], wanted, **LOGITS)
    torch.manual_seed(0)
    assert torch.equal(out.sequences, tiny.generate(**collate(rows()), **sampling))


@pytest.mark.parametrize("name", FEW)
@torch.no_grad()
def test_a_second_turn_on_the_same_cache_equals_the_whole_conversation(tiny, plain, name):
    CASES[name].attach(tiny)
    row = prompt_of(make_row(2, seed=8))
    answer, question = torch.tensor([11, 12, 13]), torch.tensor([21, 22, 23, 24])
    cache = tiny(**collate([row])).past_key_values
    logits = [tiny(input_ids=answer[None], past_key_values=cache).logits[0]]
    again = deepcopy(cache)
    logits += [tiny(input_ids=question[None], past_key_values=cache).logits[0]]
    whole = run(plain, longer(row, torch.cat([answer, question])), CASES[name].plan, prompt=len(row.ids))
    torch.testing.assert_close(torch.cat(logits), whole.logits[-7:], **LOGITS)
    assert cache.get_seq_length() == len(row.ids) + 7
    # a copy of the cache answers another question
    other = tiny(input_ids=question.flip(0)[None], past_key_values=again).logits[0]
    whole = run(plain, longer(row, torch.cat([answer, question.flip(0)])), CASES[name].plan, prompt=len(row.ids))
    torch.testing.assert_close(other, whole.logits[-4:], **LOGITS)


@pytest.mark.parametrize("name", FEW)
def test_generate_goes_on_from_a_returned_cache(tiny, plain, name):
    CASES[name].attach(tiny)
    row = prompt_of(make_row(1, seed=9))
    first = tiny.generate(**collate([row]), **GREEDY, return_dict_in_generate=True)
    ids = torch.cat([first.sequences, torch.tensor([[31, 32, 33]])], 1)
    out = tiny.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), past_key_values=first.past_key_values,
        **GREEDY, output_logits=True, return_dict_in_generate=True,
    )  # fmt: skip
    with torch.no_grad():
        wanted = recomputed(plain, row, name, out.sequences[0, len(row.ids) :])[-6:]
    torch.testing.assert_close(torch.cat(out.logits), wanted, **LOGITS)


@pytest.mark.parametrize("name", FEW)
@torch.no_grad()
def test_padded_rows_take_a_second_turn_of_different_lengths(tiny, plain, name):
    CASES[name].attach(tiny)
    first = rows()
    batch = collate(first)
    mask, positions = batch["attention_mask"], (batch["attention_mask"].cumsum(1) - 1).clamp_min(0)
    cache = tiny(**batch, position_ids=positions).past_key_values
    turns = [torch.tensor([41, 42, 43]), torch.tensor([44]), torch.tensor([45, 46])]
    second = collate([replace(row, ids=turn, pixels=row.pixels[:0]) for row, turn in zip(first, turns, strict=True)])
    mask = torch.cat([mask, second["attention_mask"]], 1)
    positions = (mask.cumsum(1) - 1).clamp_min(0)[:, -3:]
    logits = tiny(
        input_ids=second["input_ids"], attention_mask=mask, position_ids=positions, past_key_values=cache
    ).logits
    for number, (row, turn) in enumerate(zip(first, turns, strict=True)):
        whole = run(plain, longer(row, turn), CASES[name].plan, prompt=len(row.ids))
        torch.testing.assert_close(logits[number, -len(turn) :], whole.logits[-len(turn) :], **LOGITS)


@pytest.mark.parametrize("name", FEW)
@torch.no_grad()
def test_two_conversations_on_one_model_do_not_mix(tiny, name):
    CASES[name].attach(tiny)
    prompts = [prompt_of(make_row(1, seed=1)), prompt_of(make_row(3, 9, seed=2))]
    words = [torch.tensor([[50 + step, 60 + step]]).split(1, 1) for step in range(4)]
    apart = []
    for number, prompt in enumerate(prompts):
        cache = tiny(**collate([prompt])).past_key_values
        apart.append([tiny(input_ids=pair[number], past_key_values=cache).logits for pair in words])
    caches = [tiny(**collate([prompt])).past_key_values for prompt in prompts]
    for step, pair in enumerate(words):
        for number, cache in enumerate(caches):
            assert torch.equal(tiny(input_ids=pair[number], past_key_values=cache).logits, apart[number][step])


def test_threads_share_a_model(tiny):
    CASES["duet"].attach(tiny)
    prompts = [collate([prompt_of(make_row(1 + seed % 3, 3 + seed, seed))]) for seed in range(4)]

    def answer(prompt: dict[str, Tensor]) -> tuple[list[int], list[int]]:
        with duet.record(tiny) as trace:
            tokens = tiny.generate(**prompt, **GREEDY)
        return tokens[0].tolist(), trace.entered

    wanted = [answer(prompt) for prompt in prompts]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(answer, prompts)) == wanted


@torch.no_grad()
def test_the_cache_follows_repeated_selected_and_reordered_rows(tiny):
    CASES["duet"].attach(tiny)
    batch = collate(rows())
    word = torch.tensor([[51], [52], [53]])
    mask = torch.cat([batch["attention_mask"], torch.ones(3, 1, dtype=torch.long)], 1)
    positions = (mask.cumsum(1) - 1)[:, -1:]

    def step(cache: Any, order: list[int]) -> Tensor:
        return tiny(
            input_ids=word[order], attention_mask=mask[order], position_ids=positions[order], past_key_values=cache
        ).logits

    cache = tiny(**batch).past_key_values
    wanted = step(deepcopy(cache), [0, 1, 2])
    for change, order in (
        (lambda c: c.reorder_cache(torch.tensor([2, 0, 1])), [2, 0, 1]),
        (lambda c: c.batch_select_indices(torch.tensor([2, 1])), [2, 1]),
        (lambda c: c.batch_repeat_interleave(2), [0, 0, 1, 1, 2, 2]),
    ):
        changed = deepcopy(cache)
        change(changed)
        torch.testing.assert_close(step(changed, order), wanted[order], **LOGITS)
    cache.reset()
    assert type(cache).__name__ == "DynamicCache"
    assert not hasattr(cache, "prompt")


@torch.no_grad()
def test_a_cropped_cache_goes_on_where_it_was_cut(tiny):
    CASES["duet"].attach(tiny)
    row = prompt_of(make_row(1, seed=3))
    cache = tiny(**collate([row])).past_key_values
    wanted = tiny(input_ids=torch.tensor([[61]]), past_key_values=deepcopy(cache)).logits
    tiny(input_ids=torch.tensor([[71, 72, 73]]), past_key_values=cache)
    cache.crop(-3)
    assert cache.get_seq_length() == len(row.ids)
    torch.testing.assert_close(tiny(input_ids=torch.tensor([[61]]), past_key_values=cache).logits, wanted, **LOGITS)
