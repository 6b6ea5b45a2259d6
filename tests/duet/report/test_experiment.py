"""From a small sweep to its table and plot; runs that are not there are marked, not left out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from duet.cli.main import main
from duet.errors import UserError
from duet.eval.running.grid import Grid
from duet.eval.running.sweep import run_grid
from duet.report.experiment import percentage, read_grid, read_results
from duet.report.tables import grid_table
from tests.small_world import random_model, write_questions


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    root = tmp_path_factory.mktemp("sweep")
    write_questions(root / "data", "pope", "scienceqa", count=6)
    grid = Grid(
        models={"small": random_model()},
        methods=("visionzip", "pyramiddrop"),
        budgets={"few": {"average": 20, "instead": {"pyramiddrop": {"layers": [1], "ratios": [0.0]}}}},
        tasks=("pope", "sqa"),
        data=str(root / "data"),
        output=str(root / "out"),
        batch_size=6,
        max_new_tokens=2,
        loading={"device": "cpu"},
    )
    run_grid(grid)
    return grid


def test_table_has_a_row_per_run_with_scores_tokens_and_costs(grid: Grid) -> None:
    table = grid_table(grid, read_results(grid, draws=20))
    assert table.header[:3] == ["Method", "POPE", "SQA"]
    assert [row[0] for row in table.rows] == [
        "small: all visual tokens",
        "none",
        "small: few, 20.0 tokens",
        "visionzip",
        "pyramiddrop",
    ]
    full, zipped, dropped = table.records
    assert (full["tokens"], zipped["tokens"], dropped["tokens"]) == (100, 20, 25)
    assert full["gflops"] > dropped["gflops"] > zipped["gflops"] > 0
    assert full["prefill_ms"] > 0
    assert any("pyramiddrop at few has 25.0 tokens in place of 20.0" in note for note in table.notes)


def test_switches_of_a_sweep_stand_below_its_table(grid: Grid) -> None:
    assert not any("positions" in note for note in grid_table(grid, read_results(grid, draws=0)).notes)
    kept = Grid(**{**vars(grid), "switches": {"positions": "keep"}})
    assert any("positions=keep" in note for note in grid_table(kept, read_results(kept, draws=0)).notes)


def test_a_run_that_is_not_there_is_marked(grid: Grid, tmp_path: Path) -> None:
    shutil.copytree(grid.output, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "small" / "visionzip@few" / "pope")
    part = Grid(**{**vars(grid), "output": str(tmp_path / "out")})
    table = grid_table(part, read_results(part, draws=0))
    assert table.rows[3][1] == "–" and table.rows[3][2] != "–"
    assert table.records[1]["percent"] is None
    assert any("1 of 3 runs are not complete" in note for note in table.notes)


def test_the_command_writes_table_and_plot(grid: Grid, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", grid.output, "--draws", "10"]) == 0
    assert "| visionzip" in capsys.readouterr().out
    assert len(json.loads(Path(grid.output, "table.json").read_text())["rows"]) == 3
    assert Path(grid.output, "accuracy.png").stat().st_size > 10_000


def test_percentage_is_the_mean_of_the_ratios() -> None:
    assert percentage({"a": 50.0, "b": 300.0}, {"a": 100.0, "b": 1200.0}) == pytest.approx(37.5)
    assert percentage({"a": 50.0}, {"a": 0.0}) is None


def test_a_folder_without_sweep_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no grid\.yaml"):
        read_grid(tmp_path)
