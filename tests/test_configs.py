"""Every file in `configs/` is read by what it is for; a grid has no mistake but checkpoints that are still to train."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from duet.budget import find_row
from duet.budget.names import budgets
from duet.cli.sweep import read_grid
from duet.data.mixtures import mixtures, show
from duet.eval.benchmarks import BENCHMARKS
from duet.eval.files.layout import layout_of
from duet.eval.running.preflight import grid_problems
from duet.report.paper import read_table
from duet.train.run import read_recipe

ROOT = Path(__file__).parents[1]
FILES = sorted(path.relative_to(ROOT) for path in (ROOT / "configs").rglob("*") if path.is_file())


def read_budgets(path: Path) -> None:
    named = yaml.safe_load(path.read_text())["budgets"]
    assert set(named) <= set(budgets())
    assert all(find_row(name).target > 0 for name in named)


def read_experiment(path: Path) -> None:
    problems = [
        one for one in grid_problems(read_grid(path, [])) if "no checkpoint at playground/mini/runs/" not in one
    ]
    assert not problems


def read_data(path: Path) -> None:
    if path.stem == "training":
        assert all(name in show(name) for name in mixtures())
    else:
        assert all(layout_of(task) for task in BENCHMARKS)


READERS: dict[str, Callable[[Path], object]] = {
    "budgets": read_budgets,
    "eval": read_experiment,
    "data": read_data,
    "train": lambda path: read_recipe([str(path), "--dry-run"]),
    "paper": lambda path: read_table(int(path.stem.removeprefix("table"))),
    "deepspeed": lambda path: json.loads(path.read_text())["zero_optimization"]["stage"],
    "fsdp": lambda path: json.loads(path.read_text())["auto_wrap_policy"],
    "accelerate": lambda path: load_config_from_file(str(path)),
}


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_file_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    READERS[path.parts[1]](path)
