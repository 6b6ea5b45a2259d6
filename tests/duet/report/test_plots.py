"""The accuracy plot: a curve per method through its points, the full model dashed, a panel per model."""

from __future__ import annotations

from typing import Any

import pytest

from duet.eval.running.grid import Cell
from duet.report.experiment import Result
from duet.report.plots import draw_accuracy


def result(model: str, method: str, percent: float | None, tokens: float) -> Result:
    found: dict[str, Any] = {"pope": {"headline": {"value": 1.0}, "tokens": {"average": tokens}, "settings": {}}}
    ends = None if percent is None or method == "none" else (percent - 2, percent + 1)
    return Result(Cell(model, method, str(tokens)), found, percent, ends)


def test_curves_go_through_their_points_and_the_full_model_is_dashed() -> None:
    results = [
        result("plain", "none", 100.0, 100),
        result("plain", "duet", 90.0, 33),
        result("plain", "duet", 80.0, 11),
        result("trained", "none", 97.0, 100),
        result("trained", "duet", 95.0, 33),
        result("trained", "visionzip", None, 33),
    ]
    figure = draw_accuracy(results, "plain")
    plain, trained = figure.axes
    assert plain.lines[0].get_xydata().tolist() == [[11, 80], [33, 90]]
    band = plain.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (78, 91)
    dashed = [line for line in trained.lines if line.get_linestyle() == "--"]
    assert [line.get_ydata()[0] for line in dashed] == [97.0]
    assert [panel.get_title() for panel in figure.axes] == ["plain", "trained"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["duet", "all 100 tokens"]


def test_a_method_has_one_colour_in_all_panels() -> None:
    first = [result("plain", "none", 100.0, 100), result("plain", "visionzip", 80.0, 33)]
    figure = draw_accuracy([*first, result("plain", "duet", 90.0, 33), result("trained", "duet", 95.0, 33)], "plain")
    colours = [panel.collections[-1].get_facecolor()[0] for panel in figure.axes]
    assert tuple(colours[0]) == pytest.approx(tuple(colours[1]))


def test_a_figure_of_a_subset_says_so() -> None:
    full = result("plain", "none", 100.0, 100)
    full.found["pope"]["subset"] = {"questions": 60, "of": 8910, "seed": 3}  # type: ignore[index]
    figure = draw_accuracy([full, result("plain", "duet", 90.0, 33)], "plain")
    assert figure.get_suptitle() == "POPE, subset: 60 of 8910 questions, seed 3"
    assert draw_accuracy([result("plain", "duet", 90.0, 33)], "plain").get_suptitle() == ""
