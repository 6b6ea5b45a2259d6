"""Intervals: nothing for a run against itself, the textbook's width for one score, pictures as the unit."""

from __future__ import annotations

import numpy as np
import pytest

from duet.eval.benchmarks.mme import Mme
from duet.eval.types import Decided, Sample
from duet.report.bootstrap import interval, resampled_scores


def question(number: int, value: float, picture: str | None = None) -> Decided:
    name = picture or str(number)
    return Decided(
        Sample(name, str(number), "?", images=(name,), group="color", meta={"unasked": 0}), None, "yes", value, "color"
    )


def accuracy(rows) -> float:
    return 100 * sum(row.value for row in rows) / len(rows)


def test_a_run_against_itself_is_certain_although_its_score_is_not():
    rows = [question(number, number % 3 > 0) for number in range(60)]
    scores = resampled_scores({"full": rows, "same": rows}, accuracy, "pope", 200)
    assert interval([scores["same"]], [scores["full"]]) == (100.0, 100.0)
    assert scores["full"].std() > 1


def test_width_of_one_score_is_the_binomial_one():
    rows = [question(number, number % 4 > 0) for number in range(400)]
    scores = resampled_scores({"run": rows}, accuracy, "gqa", 1000)["run"]
    assert scores.mean() == pytest.approx(75, abs=0.3)
    assert scores.std() == pytest.approx(100 * (0.75 * 0.25 / 400) ** 0.5, rel=0.1)


def test_draws_depend_on_the_task_and_not_on_the_other_runs():
    rows = [question(number, number % 2) for number in range(50)]
    alone = resampled_scores({"a": rows}, accuracy, "pope", 20)["a"]
    beside = resampled_scores({"b": rows[::1], "a": rows}, accuracy, "pope", 20)["a"]
    assert np.array_equal(alone, beside)
    assert not np.array_equal(alone, resampled_scores({"a": rows}, accuracy, "mme", 20)["a"])


def test_both_questions_of_a_picture_are_drawn_together_and_copies_stay_pictures():
    rows = [question(2 * n + half, float(n % 2), f"color/{n}.png") for n in range(20) for half in (0, 1)]

    def points(drawn) -> float:
        metrics = Mme().summarise(drawn).metrics
        assert metrics["color_acc"] == metrics["color_acc_plus"]  # no picture is torn, none is merged with its copy
        return metrics["color"]

    assert resampled_scores({"run": rows}, points, "mme", 50)["run"].std() > 0


def test_no_interval_where_the_full_model_may_score_nothing():
    assert interval([np.ones(3)], [np.array([1.0, 0.0, 1.0])]) is None
