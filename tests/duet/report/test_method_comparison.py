"""Two sweeps of one grid side by side: positions as released, and kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from duet.cli.main import main
from duet.errors import UserError
from duet.eval.running.grid import Grid
from duet.eval.running.sweep import run_grid
from duet.report.method_comparison import methods_table
from tests.small_world import random_model, write_questions


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("methods")
    write_questions(root / "data", "pope", count=6)
    for name, switches in (("released", {}), ("kept", {"positions": "keep"})):
        grid = Grid(
            models={"small": random_model()},
            methods=("visionzip", "scope", "duet"),
            budgets={"few": 20.0},
            tasks=("pope",),
            data=str(root / "data"),
            output=str(root / "out" / name),
            batch_size=6,
            max_new_tokens=2,
            switches=switches,
            loading={"device": "cpu"},
        )
        run_grid(grid)
    return root / "out"


def test_every_method_has_both_columns(folder: Path) -> None:
    table = methods_table(folder)
    assert table.rows[0] == ["few, 20.0 tokens"]
    assert {row[0] for row in table.rows[1:]} == {"visionzip", "scope", "duet"}
    assert all(record["released"] is not None and record["kept"] is not None for record in table.records)
    best = [max(record["released"], record["kept"]) for record in table.records]
    assert best == sorted(best, reverse=True)
    assert {row[1] for row in table.rows[1:]} == {"1", "1 + 2"}


def test_some_rows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", "methods", "--results", str(folder), "--rows", "scope"]) == 0
    shown = capsys.readouterr().out
    assert "scope" in shown and "visionzip" not in shown
    with pytest.raises(UserError, match="no results of divprune"):
        methods_table(folder, ["divprune"])


def test_the_plan_sweeps_both(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", "methods", "--plan"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "output=outputs/methods/released" in first and "switches.positions=keep" in second


def test_without_a_sweep(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no grid\.yaml"):
        methods_table(tmp_path)
