"""Grids: which runs there are, and which budget each of them gets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from duet.budget import Budget, find_backbone
from duet.config import ConfigError, build, load_config
from duet.errors import UserError
from duet.eval.running.grid import Grid, find_budget

MINI = find_backbone("mini")
VALUES = {
    "models": {"a": "x", "b": "y"},
    "methods": ["visionzip", "duet"],
    "budgets": {"half": {"average": 50}, "tenth": {"average": 10}},
    "tasks": ["pope"],
    "data": "data",
    "output": "out",
}


def test_each_model_starts_with_all_tokens_then_goes_budget_by_budget():
    grid = build(Grid, VALUES)
    assert [str(cell) for cell in grid.cells()][:5] == [
        "a none",
        "a visionzip half",
        "a duet half",
        "a visionzip tenth",
        "a duet tenth",
    ]
    folders = [grid.folder(cell) for cell in grid.cells()]
    assert len(set(folders)) == len(folders) == 10


@pytest.mark.parametrize("method", ["visionzip", "pyramiddrop", "duet"])
def test_an_average_is_solved_for_each_method(method: str):
    assert abs(find_budget({"average": 33.333}, method, MINI).average(MINI) - 33.333) < 0.75
    assert find_budget(33.333, method, MINI) == find_budget({"average": 33.333}, method, MINI)


@pytest.mark.parametrize("given", [33.333, {"average": 33.333}, {"average": 5, "instead": {"pyramiddrop": 33.333}}])
def test_an_average_is_solved_under_the_ratio_base_that_runs(given):
    budget = find_budget(given, "pyramiddrop", MINI, "compounding")
    assert budget.ratio_base == "compounding"
    assert budget.average(MINI) == pytest.approx(33.333, abs=0.75)
    solved_otherwise = replace(find_budget(33.333, "pyramiddrop", MINI), ratio_base="compounding")
    assert abs(solved_otherwise.average(MINI) - 33.333) > 0.75


def test_the_ratio_base_that_runs_holds_for_numbers_and_names():
    numbers = {"layers": [4, 6], "ratios": [0.5, 0.0], "ratio_base": "entered"}
    assert find_budget(numbers, "pyramiddrop", MINI, "compounding").ratio_base == "compounding"
    assert find_budget("mini_third", "duet", MINI, "compounding").ratio_base == "compounding"
    assert find_budget(None, "none", MINI, "compounding") == Budget()


def test_numbers_are_cut_to_the_stages_of_the_method():
    numbers = {"dominant": 20, "contextual": 4, "layers": [4, 6], "ratios": [0.5, 0.0]}
    assert find_budget(numbers, "visionzip", MINI) == Budget(20, 4)
    assert find_budget(numbers, "pyramiddrop", MINI) == Budget(layers=(4, 6), ratios=(0.5, 0.0))


def test_what_a_method_cannot_have_needs_numbers_instead():
    budget = {"average": 11.111}
    with pytest.raises(UserError, match="cannot be reached"):
        find_budget(budget, "pyramiddrop", MINI)
    budget["instead"] = {"pyramiddrop": {"layers": [1], "ratios": [0.0]}}
    assert find_budget(budget, "pyramiddrop", MINI).average(MINI) == 12.5
    assert find_budget(budget, "duet", MINI).average(MINI) == pytest.approx(11.25)


def test_names_and_mistakes():
    assert find_budget("mini_third", "visionzip", MINI).average(MINI) == 33
    with pytest.raises(UserError, match="keeps all tokens"):
        find_budget(20, "none", MINI)
    with pytest.raises(UserError, match="needs a budget"):
        find_budget(None, "duet", MINI)
    with pytest.raises(UserError, match="dominnant"):
        find_budget({"dominnant": 3}, "duet", MINI)
    with pytest.raises(ConfigError, match="tasks is empty"):
        build(Grid, {**VALUES, "tasks": []})
    with pytest.raises(UserError, match="unknown method"):
        build(Grid, {**VALUES, "methods": ["duett"]})


def test_the_quickstart_has_equal_averages():
    grid = load_config(Grid, Path(__file__).parents[4] / "configs" / "eval" / "quickstart.yaml")
    assert len(list(grid.cells())) == 32
    assert "duet_c" in grid.methods  # the paper's headline row
    for name, budget in grid.budgets.items():
        for method in grid.methods:
            off = find_budget(budget, method, MINI).average(MINI) - budget["average"]
            assert abs(off) < 0.75 or (method, name) == ("pyramiddrop", "one ninth")
