"""Grids: `vary` sections, and the grid files of the repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from duet.budget import find_backbone
from duet.cli.sweep import read_grid
from duet.config import ConfigError
from duet.eval.running.grid import find_budget
from duet.eval.running.vary import expand

GRIDS = sorted((Path(__file__).parents[4] / "configs" / "eval").glob("*figure*.yaml"))


def test_every_combination_becomes_a_budget():
    block = {"fixed": {"layers": [16]}, "total": 100, "each": {"dominant": [60, 80], "cluster_width": [2, 4]}}
    budgets = expand({"budgets": {"own": 5}, "vary": [block]})["budgets"]
    assert len(budgets) == 5
    assert budgets["dominant=60 cluster_width=4 of 100"] == {
        "layers": [16],
        "dominant": 60,
        "contextual": 40,
        "cluster_width": 4,
    }


def test_lists_are_values_too():
    budgets = expand({"vary": [{"each": {"ratios": [[0.5, 0.25], [0.5, 0.0]]}}]})["budgets"]
    assert budgets == {"ratios=0.5+0.25": {"ratios": [0.5, 0.25]}, "ratios=0.5+0": {"ratios": [0.5, 0.0]}}


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("none", "must have `each`"),
        ({"fixed": {}}, "must have `each`"),
        ({"each": {"dominant": [1]}, "some": 1}, "must have `each`"),
        ({"each": {"dominant": 5}}, "give a list of values"),
    ],
)
def test_blocks_that_are_none(block, message):
    with pytest.raises(ConfigError, match=message):
        expand({"vary": [block]})


def test_equal_names_are_an_error():
    block = {"each": {"dominant": [5]}}
    with pytest.raises(ConfigError, match="two budgets are called 'dominant=5'"):
        expand({"vary": [{**block, "fixed": {"contextual": 1}}, block]})


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_figures_can_be_run(path):
    grid = read_grid(path, [])
    backbone = find_backbone("mini" if path.stem.startswith("mini") else "llava15")
    folders = [grid.folder(cell) for cell in grid.cells()]
    assert len(set(folders)) == len(folders)
    for cell in grid.cells():
        budget = find_budget(grid.budgets.get(cell.budget), cell.method, backbone)
        assert 0 < budget.average(backbone) <= backbone.full
