"""From a small sweep to its table and plot; runs that are not there are marked, not left out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from duet.cli.main import main
from duet.errors import UserError
from duet.eval.running.grid import Grid
from duet.eval.running.sweep import run_grid
from duet.report.experiment import choose, percentage, read_grid, read_results
from duet.report.tables import grid_table
from duet.report.writing import write_report
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
    assert any("pyramiddrop at few has 25.0 tokens instead of 20.0" in note for note in table.notes)


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


def test_a_folder_is_what_was_named_wherever_it_lies(
    grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(grid.output, tmp_path / "copy")
    settings = yaml.safe_load((tmp_path / "copy" / "grid.yaml").read_text())
    (tmp_path / "copy" / "grid.yaml").write_text(yaml.safe_dump({**settings, "output": "out", "data": "gone"}))
    shutil.rmtree(tmp_path / "copy" / "small" / "visionzip@few")
    monkeypatch.chdir(Path(grid.output).parent)  # where `out` is another folder, with all runs
    assert main(["report", str(tmp_path / "copy"), "--draws", "5"]) == 0
    assert "1 of 3 runs are not complete" in capsys.readouterr().out
    assert main(["plot", "accuracy", "--results", str(tmp_path / "copy")]) == 0
    assert (tmp_path / "copy" / "accuracy.png").exists()
    assert main(["report", str(tmp_path / "copy"), "--draws", "0", "--format", "pdf"]) == 0
    assert (tmp_path / "copy" / "accuracy.pdf").read_bytes().startswith(b"%PDF")


def test_a_folder_without_results_writes_nothing_over_what_is_there(grid: Grid, tmp_path: Path) -> None:
    shutil.copy(Path(grid.output, "grid.yaml"), tmp_path)
    (tmp_path / "table.md").write_text("good")
    with pytest.raises(UserError, match="holds no results yet"):
        write_report(tmp_path, 0)
    assert (tmp_path / "table.md").read_text() == "good"


def test_runs_of_other_questions_are_not_paired(grid: Grid, tmp_path: Path) -> None:
    shutil.copytree(grid.output, tmp_path / "out")
    rows = tmp_path / "out" / "small" / "visionzip@few" / "pope" / "rows.jsonl"
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(UserError, match="different questions"):
        read_results(read_grid(tmp_path / "out"), draws=3)


def test_models_and_methods_are_chosen_and_others_are_errors(grid: Grid) -> None:
    results = read_results(grid, draws=0)
    assert [result.cell.method for result in choose(results, ["sm*"], "visionzip")] == ["none", "visionzip"]
    with pytest.raises(UserError, match="no results of model large; there are those of small"):
        choose(results, ["large"])
    with pytest.raises(UserError, match="no results of method duet; there are those of visionzip, pyramiddrop"):
        choose(results, (), "duet")


@pytest.mark.parametrize("words", [["--model", "large"], ["--method", "duet"], ["--task", "pope"]])
def test_plot_accuracy_heeds_its_options(grid: Grid, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", "accuracy", "--results", grid.output, "-o", f"{grid.output}/none.png", *words]) == 2
    assert not Path(grid.output, "none.png").exists()


def test_a_subset_is_marked_in_table_and_records(grid: Grid, tmp_path: Path) -> None:
    shutil.copytree(grid.output, tmp_path / "out")
    for path in (tmp_path / "out").rglob("pope/metrics.json"):
        found = json.loads(path.read_text())
        path.write_text(json.dumps({**found, "subset": {"questions": 6, "of": 100, "seed": 2}}))
    table = grid_table(grid, read_results(read_grid(tmp_path / "out"), draws=3))
    assert table.header[1] == "POPE*" and table.header[2] == "SQA" and table.header[3] == "Avg. %* [95 %]"
    assert table.records[0]["subset"] == {"pope": {"questions": 6, "of": 100, "seed": 2}}
    assert any("POPE 6 of 100" in note and "seed 2" in note for note in table.notes)
