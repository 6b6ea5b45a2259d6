"""Runs under shapes beyond the paper's: counts at every boundary, what is updated, and reading the answers back."""

from __future__ import annotations

import json

import pytest

from duet.eval.running.sweep import Evaluation, evaluate
from tests.small_world import random_model, write_questions

SHAPE = {"dominant": 20, "contextual": 4, "layers": [2], "ratios": [0.5], "entry": 1, "frozen": 3}


def run_of(tmp_path, budget, method="duet"):
    return Evaluation(
        model=random_model(),
        tasks=["pope"],
        data=str(write_questions(tmp_path / "data", "pope", count=6)),
        output=str(tmp_path / "out"),
        method=method,
        budget=budget,
        batch_size=4,
        max_new_tokens=2,
        loading={"device": "cpu"},
    )


@pytest.mark.parametrize(
    "budget",
    [
        {"dominant": 20, "contextual": 4, "layers": [3], "ratios": [0.5], "away": [1, 2]},
        {"average": 9, "contextual_share": 0.15, "layers": [3], "ratios": [0.5], "away": [1, 2]},
    ],
)
def test_a_run_with_layers_without_visual_tokens(tmp_path, budget):
    evaluate(run_of(tmp_path, budget))
    tokens = json.loads((tmp_path / "out" / "pope" / "metrics.json").read_text())["tokens"]
    assert tokens["layers"] == [0, 1, 3] and tokens["kept"] == [24, 0, 12]
    assert tokens["average"] == tokens["computed_average"] == (24 + 12) / 4


def test_all_tokens_may_be_away_or_frozen_without_a_method(tmp_path):
    (found,) = evaluate(run_of(tmp_path, {"away": [1, 2], "frozen": 3}, method="none"))
    assert found["tokens"]["average"] == found["tokens"]["computed_average"] == (100 + 100) / 4
    assert found["tokens"]["frozen"] == [3] and found["settings"]["budget"]["frozen"] == 3


@pytest.mark.parametrize("again", [False, True])
def test_a_run_with_a_late_entry_and_frozen_layers(tmp_path, again):
    wanted = run_of(tmp_path, SHAPE)
    evaluate(wanted)
    (found,) = evaluate(wanted) if again else [json.loads((tmp_path / "out" / "pope" / "metrics.json").read_text())]
    tokens = found["tokens"]
    assert tokens["layers"] == [0, 1, 2] and tokens["kept"] == [0, 24, 12]
    assert tokens["average"] == tokens["computed_average"] == (0 + 24 + 12 + 12) / 4
    assert (tokens["frozen"], tokens["updated_average"]) == ([3], (0 + 24 + 12) / 4)
    assert found["counts"]["missing"] == 0
