"""Values that Python lets through: each call says in one line what to give instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

import duet
from duet.errors import UserError
from duet.loading import load_stock
from tests.small_world import random_model

PICTURE = Image.new("RGB", (100, 100), (9, 99, 9))
BUDGET = duet.Budget(dominant=20, layers=(2,), ratios=(0.5,))


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any]:
    """The random model with DUET attached, and its processor."""
    model, processor = load_stock(random_model(), device="cpu")
    return duet.attach(model, "duet", BUDGET), processor


BUDGETS: dict[str, tuple[Callable[[], Any], str]] = {
    "one layer": (lambda: duet.Budget(dominant=9, layers=2, ratios=0.5), "layers is 2; give a list"),
    "one ratio": (lambda: duet.Budget(dominant=9, layers=(2,), ratios=0.5), "ratios is 0.5; give a list"),
    "one count": (lambda: duet.Budget(dominant=9, layers=(2,), keep=3), "keep is 3; give a list"),
    "one layer away": (lambda: duet.Budget(dominant=9, away=3), "away is 3; give a list"),
    "an average in words": (lambda: duet.Budget.solve("128"), "average of '128' visual tokens"),
    "an average that is none": (lambda: duet.Budget.solve(float("nan")), "average of nan visual tokens"),
    "a share in words": (lambda: duet.Budget.solve(128, contextual_share="x"), "contextual_share is 'x'"),
    "a layer to solve for": (lambda: duet.Budget.solve(128, layers=16), "layers is 16; give a list"),
    "a layer away to solve for": (lambda: duet.Budget.solve(128, away=16), "away is 16; give a list"),
    "a number of a backbone": (lambda: duet.Budget.solve(128, 7), "7 is no backbone; give a name"),
    "a list of backbones": (lambda: BUDGET.average(["mini"]), "is no backbone; give a name"),
}


@pytest.mark.parametrize("name", BUDGETS)
def test_a_wrong_value_of_a_budget(name: str) -> None:
    call, message = BUDGETS[name]
    with pytest.raises(UserError, match=message):
        call()


CALLS: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "a method's number": (lambda model, _: duet.attach(model, 7, BUDGET), "method is 7; give a name"),
    "attach without a model": (lambda *_: duet.attach("model", "duet", BUDGET), "str is no model"),
    "detach without a model": (lambda *_: duet.detach(None), "NoneType is no model"),
    "record without a model": (lambda *_: duet.record([]).__enter__(), "list is no model"),
    "the processor, not its tokenizer": (
        lambda model, processor: duet.attach(model, "duet_c_s", BUDGET, tokenizer=processor),
        "tokenizer is a LlavaProcessor; give processor.tokenizer",
    ),
    "inputs that are none": (lambda model, _: duet.loglikelihood(model, [1], [[[1]]]), "inputs: give a processor's"),
    "one answer": (lambda model, _: duet.loglikelihood(model, {"input_ids": []}, "yes"), "answers: give a list"),
}
LOOKS: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "one picture": (lambda model, processor: duet.look(model, PICTURE, processor), "a list of opened pictures"),
    "a picture's path": (lambda model, processor: duet.look(model, ["a.png"], processor), "a list of opened pictures"),
    "numbers": (lambda model, processor: duet.look(model, [1], processor), "a list of opened pictures"),
    "another mapping": (lambda model, _: duet.look(model, {"a": 1}), "needs input_ids"),
    "a name of a processor": (lambda model, _: duet.look(model, [PICTURE], "clip"), "needs the processor"),
    "a limit in words": (lambda model, processor: duet.look(model, [PICTURE], processor, limit="1G"), "limit is '1G'"),
    "no model": (lambda _, processor: duet.look(7, [PICTURE], processor), "int is no model"),
}
QUESTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "a number": ({"question": 7}, "the question is 7; give text"),
    "numbers": ({"question": [7]}, "give text, or a list of texts"),
    "a turn without its answer": ({"question": "Why?", "history": ["Why?"]}, "history is a list of"),
    "a turn of numbers": ({"question": "Why?", "history": [(1, 2)]}, "history is a list of"),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_value_of_a_call(name: str, loaded: tuple[Any, Any]) -> None:
    call, message = CALLS[name]
    with pytest.raises(UserError, match=message):
        call(*loaded)


@pytest.mark.parametrize("name", LOOKS)
def test_a_wrong_value_of_look(name: str, loaded: tuple[Any, Any]) -> None:
    call, message = LOOKS[name]
    with pytest.raises(UserError, match=message), call(*loaded):
        pass


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_wrong_question_about_read_pictures(name: str, loaded: tuple[Any, Any]) -> None:
    asked, message = QUESTIONS[name]
    model, processor = loaded
    with duet.look(model, [PICTURE], processor) as seen, pytest.raises(UserError, match=message):
        seen.ask(**asked)
