"""What comes after a prompt never votes on its pictures: told by `prompt_lengths`, or known from `generate`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import duet
from duet.errors import UserError
from tests.duet.engine.cases import CASES
from tests.families import Family
from tests.family_checks import check_decoding, only_words
from tests.tiny_llava import IMAGE, collate, make_row, prompt_of, twin

pytestmark = pytest.mark.usefixtures("no_grad")

LOGITS = {"atol": 2e-4, "rtol": 0}
#: Stage 2 by the last token, by all text, and by the text that looks at the pictures.
GUIDED = pytest.mark.parametrize("guidance", ["last", "all", "attention"])


def answered(family: Family, length: int = 3) -> tuple[list[Any], Tensor]:
    """Prompts with answers, and the answers `[B, length]`."""
    generator = torch.Generator().manual_seed(5)
    new = torch.randint(3, family.words, (len(family.prompts), length), generator=generator)
    return [family.answered(row, answer) for row, answer in zip(family.prompts, new, strict=True)], new


@GUIDED
def test_without_a_cache_generate_equals_recomputing(family, guidance):
    model = family.attach(family.build(), text_guidance=guidance)
    check_decoding(model, family, LOGITS, use_cache=False)


def test_without_a_cache_beams_and_samples_are_those_with_one(family):
    model = family.attach(family.build())
    batch = family.collate(family.prompts)
    for options in ({"num_beams": 3}, {"do_sample": True, "num_return_sequences": 2, "top_k": 3}):
        found = []
        for use_cache in (True, False):
            torch.manual_seed(0)
            found.append(model.generate(**batch, **{**only_words(family, model), **options}, use_cache=use_cache))
        assert torch.equal(*found)


@GUIDED
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_forward_with_prompt_lengths_equals_one_with_labels(family, guidance, side):
    model = family.attach(family.build(), text_guidance=guidance)
    rows, _ = answered(family)
    lengths = [len(row.ids) for row in family.prompts]
    batch = family.collate(rows, side, labels=True)
    labels = batch.pop("labels")
    wanted = model(**batch, labels=labels).logits
    for given in (lengths, torch.tensor(lengths)):
        torch.testing.assert_close(model(**batch, prompt_lengths=given).logits, wanted, **LOGITS)
    body = model.model(**batch, prompt_lengths=lengths).last_hidden_state
    torch.testing.assert_close(model.lm_head(body), wanted, **LOGITS)
    both = model(**batch, prompt_lengths=lengths, labels=labels)
    torch.testing.assert_close(both.logits, wanted, **LOGITS)
    torch.testing.assert_close(both.loss, model(**batch, labels=labels).loss)


def test_the_prompt_has_the_logits_that_it_has_alone(family):
    """Without the lengths it does not: answers vote. That is why they have to be given."""
    model = family.attach(family.build(), "pyramiddrop_all")
    rows, _ = answered(family)
    moved = []
    for prompt, row in zip(family.prompts, rows, strict=True):
        alone = model(**family.collate([prompt])).logits[0]
        whole = family.collate([row])
        told = model(**whole, prompt_lengths=[len(prompt.ids)]).logits[0, : len(prompt.ids)]
        torch.testing.assert_close(told, alone, **LOGITS)
        moved.append((model(**whole).logits[0, : len(prompt.ids)] - alone).abs().max())
    assert max(moved) > 0.01


def test_salient_words_vote_as_in_generate(tiny):
    """The last prompt token votes with them, as in generation; labels leave it out, as in training."""
    CASES["duet_c_s"].attach(tiny)
    prompt = prompt_of(make_row(2, seed=3))
    row = replace(prompt, ids=torch.tensor([*prompt.ids, 7, 8]))
    with duet.record(tiny) as trace:
        alone = tiny(**collate([prompt])).logits[0]
        wanted = [stage.voters[0].tolist() for stage in trace.stages]
        found = tiny(**collate([row]), prompt_lengths=[len(prompt.ids)]).logits[0, :-2]
    assert [stage.voters[0].tolist() for stage in trace.stages] == wanted
    assert all(len(prompt.ids) - 1 in voters for voters in wanted)
    torch.testing.assert_close(found, alone, **LOGITS)
    labels = torch.full((1, len(row.ids)), -100)
    labels[0, -2:] = row.ids[-2:]
    both = tiny(**collate([row]), prompt_lengths=[len(prompt.ids)], labels=labels).logits[0, :-2]
    torch.testing.assert_close(both, alone, **LOGITS)


def test_prompts_without_pictures_ignore_them(tiny):
    text = collate([prompt_of(make_row(0, seed=1))])
    wanted = tiny(**text).logits
    CASES["duet"].attach(tiny)
    assert torch.equal(tiny(**text, prompt_lengths=[3]).logits, wanted)


def test_a_budget_that_does_not_fit_stays_the_users_error(tiny):
    """The lengths are noted in the message; they do not make it another kind of error."""
    duet.attach(tiny, "visionzip", duet.Budget(dominant=500))
    row = make_row(1, seed=1)
    row = replace(row, ids=torch.cat([row.ids, torch.tensor([IMAGE])]), labels=None)
    with pytest.raises(UserError, match=r"asked for 500 tokens.* \(within prompt_lengths"):
        tiny(**collate([row]), prompt_lengths=[len(row.ids) - 1])


def test_lengths_that_cannot_be_are_refused(tiny):
    CASES["duet"].attach(tiny)
    batch = collate([prompt_of(make_row(1, seed=1)), prompt_of(make_row(1, 3, seed=2))])
    real = batch["attention_mask"].sum(1).tolist()
    for wrong in ([real[0]], [real[0], 0], [real[0], real[1] + 1]):
        with pytest.raises(ValueError, match=r"prompt_lengths"):
            tiny(**batch, prompt_lengths=wrong)
    with pytest.raises(ValueError, match=r"within prompt_lengths \[8, 7\], which count every placeholder"):
        tiny(**batch, prompt_lengths=[8, 7])


def test_a_prompt_that_ends_with_a_picture_is_refused_here_too(tiny):
    CASES["duet"].attach(tiny)
    row = prompt_of(make_row(1, seed=1))
    with pytest.raises(ValueError, match=r"prompt rows \[0\] end with a picture"):
        tiny(**collate([row]), prompt_lengths=[int((row.ids == IMAGE).nonzero().max()) + 1])


@pytest.mark.parametrize("method", ["visionzip_c", "duet"])
def test_a_generated_placeholder_is_a_word(tiny, method):
    CASES[method].attach(tiny)
    prompt = prompt_of(make_row(2, seed=3))
    new = torch.tensor([IMAGE, 9, IMAGE])
    cache = tiny(**collate([prompt])).past_key_values
    wanted = tiny(input_ids=new[None], past_key_values=cache).logits[0]
    row = replace(prompt, ids=torch.cat([prompt.ids, new]))
    found = tiny(**collate([row]), prompt_lengths=[len(prompt.ids)]).logits[0]
    torch.testing.assert_close(found[-3:], wanted, **LOGITS)


@pytest.mark.parametrize("method", ["visionzip_c", "duet"])
@pytest.mark.parametrize("padded", [False, True])
def test_assisted_decoding_gives_what_greedy_decoding_gives(family, method, padded):
    """Guesses follow the prompt and do not vote; placeholders in them are words; wrong ones leave the cache."""
    model, draft = family.attach(family.build(), method), family.attach(family.build(), method)
    for weight in draft.lm_head.parameters():
        weight.data += 0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    for prompt in family.prompts[:2]:
        rows = [prompt, max(family.prompts, key=lambda row: len(row.ids))] if padded else [prompt]
        batch = _first(family.collate(rows), family, prompt) if padded else family.collate([prompt])
        options = {**only_words(family, model), "max_new_tokens": 7}
        wanted = model.generate(**batch, **options)
        assert torch.equal(model.generate(**batch, **options, prompt_lookup_num_tokens=3), wanted)
        assert torch.equal(model.generate(**batch, **options, assistant_model=draft), wanted)


def _first(batch: dict[str, Tensor], family: Family, prompt: Any) -> dict[str, Tensor]:
    """The first row of a batch, with its padding and its own pictures."""
    alone = family.collate([prompt])
    text = {name: batch[name][:1] for name in ("input_ids", "attention_mask", "mm_token_type_ids") if name in alone}
    return {**alone, **text}


def test_assisted_decoding_by_a_stock_draft(tiny):
    draft = twin(tiny)
    CASES["duet"].attach(tiny)
    batch = collate([prompt_of(make_row(2, seed=4))])
    options = {"max_new_tokens": 8, "do_sample": False}
    assert torch.equal(tiny.generate(**batch, **options, assistant_model=draft), tiny.generate(**batch, **options))
    assert torch.equal(draft.generate(**batch, **options, assistant_model=tiny), draft.generate(**batch, **options))
