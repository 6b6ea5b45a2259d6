"""The model behind the page: answers are those of `duet ask`, streamed; who leaves stops it; nothing stays on it."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import duet
from duet.engine.attachment import attached
from duet.errors import UserError
from duet.inference import ask
from tests import golden_qwen
from tests.duet.demo.pages import CHECKPOINT, METHODS, small_demo
from tests.llava_next_checkpoints import save_hf


def asked(number: int = 0) -> tuple[Any, str]:
    from duet.demo.examples import small_world

    return small_world()[number]


def last(demo: Any, average: float = 30, methods: Any = METHODS) -> list[Any]:
    question = demo.encode(*asked())
    return list(demo.answer(question, demo.costs(methods, average, demo.measure(question))))[-1]


def test_answers_are_those_of_the_command() -> None:
    picture, question = asked()
    panes = last(small_demo())
    assert [pane.state for pane in panes] == ["done"] * 3
    for pane in panes:
        chosen = {} if pane.cost.method == "none" else {"method": pane.cost.method, "budget": pane.cost.budget}
        model, processor = duet.load(CHECKPOINT, device="cpu", **chosen)
        assert ask(model, processor, [picture], question).text == pane.text
    with pytest.raises(ValueError):
        attached(small_demo().model)


def test_what_was_said_of_the_costs_is_what_was_kept() -> None:
    for pane in last(small_demo(), 25, ["duet", "pyramiddrop", "visionzip"])[1:]:
        counts = pane.answer.trace.counts()
        layers = pane.cost.layers
        assert counts == {boundary: layers[boundary] for boundary in counts}


@pytest.mark.parametrize("family", ["qwen", "next"])
def test_it_is_so_for_pictures_of_any_size(family: str, tmp_path: Path) -> None:
    """And every panel is drawn."""
    from duet.demo.model import Demo
    from duet.demo.panels import kept_panels, word_panels
    from duet.demo.words import voted, word_maps

    path = golden_qwen.FOLDER / "weights_hf" if family == "qwen" else save_hf(tmp_path)
    limits = replace(small_demo().limits, new_tokens=2)
    demo = Demo(*duet.load(str(path), device="cpu"), family, limits)
    question = demo.encode(Image.new("RGB", (150, 100), "red"), "What is written on the sign?")
    prompt = demo.measure(question)
    costs = demo.costs(["duet", "sparsevlm", "visionzip"], 0.3 * demo.full(prompt), prompt)
    panes = list(demo.answer(question, costs))[-1]
    assert panes[0].answer is not None and demo.full(prompt) == costs[0].layers[0]
    for pane in panes[1:]:
        counts = pane.answer.trace.counts()
        assert counts == {boundary: pane.cost.layers[boundary] for boundary in counts}
        assert all(panel.svg.startswith("<svg") for row in kept_panels(question, pane.answer) for panel in row)
    answers = [pane.answer for pane in panes[1:]]
    marked = [word.strip() for word, votes in voted(demo, answers[0]) if votes]
    maps = word_maps(demo, question, answers)
    assert {"written", "sign"} <= set(marked) and {"written", "sign"} <= {one.looker.label for one in maps}
    assert [len(row) for row in word_panels(question, maps)] == [len(maps)] * (2 if family == "next" else 1)


def test_text_comes_in_pieces_that_only_grow() -> None:
    demo = small_demo()
    question = demo.encode(*asked(1))
    texts = [panes[0].text for panes in demo.answer(question, demo.costs([], 30, demo.measure(question)))]
    assert len(set(texts)) > 3
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))


def test_who_leaves_stops_the_model() -> None:
    from duet.demo.model import Demo

    demo = small_demo()
    slow = Demo(demo.model, demo.processor, "slow", replace(demo.limits, new_tokens=100))
    question = slow.encode(*asked(1))
    panes = slow.answer(question, slow.costs(METHODS, 30, slow.measure(question)))
    next(panes)
    next(panes)
    panes.close()
    begin = time.monotonic()
    with slow.weights:
        assert time.monotonic() - begin < 5
    with pytest.raises(ValueError):
        attached(slow.model)


def test_a_fault_of_one_side_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    demo = small_demo()
    run = demo.run_side

    def breaks(cost: Any, *rest: Any) -> Any:
        if cost.method == "duet":
            raise RuntimeError("/secret/path")
        return run(cost, *rest)

    monkeypatch.setattr(demo, "run_side", breaks)
    panes = last(demo)
    assert [pane.state for pane in panes] == ["done", "failed", "done"]
    assert "secret" not in panes[1].problem


def test_time_is_limited() -> None:
    from duet.demo.model import Demo

    demo = small_demo()
    late = Demo(demo.model, demo.processor, "late", replace(demo.limits, timeout=0))
    assert all("longer" in pane.problem for pane in last(late))


@pytest.mark.parametrize(
    ("question", "message"),
    [("  ", "ask a question"), ("a" * 3000, "3000 characters"), ("<image> and <image>", "placeholder|picture")],
)
def test_questions_that_are_none(question: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        small_demo().encode(asked()[0], question)


def test_methods_that_need_another_checkpoint_are_left_out() -> None:
    from duet.demo.model import check_methods

    demo = small_demo()
    assert "duet" in demo.methods and "cdpruner" not in demo.methods and "none" not in demo.methods
    with pytest.raises(UserError, match="cdpruner does not run"):
        check_methods(demo, ["cdpruner"])
