"""Log-probabilities of answers: those of a forward with labels, one row at a time, for stock and attached models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import duet
from duet.errors import UserError
from tests.families import FAMILIES, Family

TOLERANCE = {"atol": 2e-4, "rtol": 0}


def some_answers(family: Family) -> list[list[list[int]]]:
    """Two answers of different lengths for each prompt, three for the first."""
    generator = torch.Generator().manual_seed(2)

    def words(count: int) -> list[int]:
        return torch.randint(3, family.words, (count,), generator=generator).tolist()

    return [[words(1 + number % 3), words(4)] + [words(2)] * (number == 0) for number in range(len(family.prompts))]


@torch.no_grad()
def by_labels(model: Any, family: Family, prompt: Any, answer: list[int]) -> tuple[Tensor, bool]:
    """Log-probability of each token, and whether each is the best, from one labelled row."""
    row = family.answered(prompt, torch.tensor(answer))
    logits = model(**family.collate([row], labels=True)).logits[0, len(prompt.ids) - 1 : -1].log_softmax(-1)
    return logits.gather(1, torch.tensor(answer)[:, None])[:, 0], logits.argmax(-1).tolist() == answer


@pytest.mark.parametrize("method", ["stock", "none", "pyramiddrop", "duet"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_it_is_what_labels_give(family, method, side):
    model = family.build()
    if method != "stock":
        family.attach(model, method)
    answers = some_answers(family)
    inputs = family.collate(family.prompts, side)
    for size in (None, 3):
        found = duet.loglikelihood(model, inputs, answers, batch_size=size)
        assert [len(row) for row in found] == [len(row) for row in answers]
        for prompt, row, scores in zip(family.prompts, answers, found, strict=True):
            for answer, score in zip(row, scores, strict=True):
                wanted, greedy = by_labels(model, family, prompt, answer)
                torch.testing.assert_close(score.tokens, wanted, **TOLERANCE)
                assert score.total == pytest.approx(float(wanted.sum()), abs=1e-3) and score.greedy == greedy


def test_a_greedy_answer_is_known_as_one(family):
    model = family.attach(family.build())
    inputs = family.collate(family.prompts)
    out = model.generate(**inputs, max_new_tokens=3, do_sample=False, output_logits=True, return_dict_in_generate=True)
    new = out.sequences[:, inputs["input_ids"].shape[1] :]
    steps = torch.stack(out.logits, 1).log_softmax(-1).amax(-1)
    for number, (score,) in enumerate(duet.loglikelihood(model, inputs, [[answer] for answer in new])):
        assert score.greedy
        torch.testing.assert_close(score.tokens, steps[number], **TOLERANCE)
    other = new.clone()
    other[:, 1] = (other[:, 1] + 1) % family.words
    assert not any(score.greedy for (score,) in duet.loglikelihood(model, inputs, [[answer] for answer in other]))


class Letters:
    """A tokenizer of one token per letter."""

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        assert not add_special_tokens
        return {"input_ids": [3 + ord(letter) % 64 for letter in text]}


def test_texts_need_a_tokenizer_and_answers_a_token():
    family = FAMILIES["llava"]
    model, inputs = family.attach(family.build()), family.collate(family.prompts[:1])
    (texts,) = duet.loglikelihood(model, inputs, [["no", "yes"]], tokenizer=Letters())
    (ids,) = duet.loglikelihood(model, inputs, [[Letters()(text, False)["input_ids"] for text in ("no", "yes")]])
    assert [score.total for score in texts] == [score.total for score in ids]
    for answers, message in (
        ([["no"]], "pass tokenizer"),
        ([[[]]], "at least one"),
        ([[[3]], [[3]]], "1 prompts, but answers for 2"),
    ):
        with pytest.raises(UserError, match=message):
            duet.loglikelihood(model, inputs, answers)
    with pytest.raises(UserError, match="is not supported"):
        duet.loglikelihood(torch.nn.Linear(1, 1), inputs, [[[3]]])


def test_a_model_inside_peft_is_scored_as_it_is():
    peft = pytest.importorskip("peft", reason="peft is not installed")
    family = FAMILIES["llava"]
    inputs, answers = family.collate(family.prompts), some_answers(family)
    model = family.attach(family.build())
    wanted = [score.total for row in duet.loglikelihood(model, inputs, answers) for score in row]
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=r".*language_model.*q_proj"))
    found = [score.total for row in duet.loglikelihood(wrapped.eval(), inputs, answers) for score in row]
    assert found == pytest.approx(wanted, abs=1e-4)
