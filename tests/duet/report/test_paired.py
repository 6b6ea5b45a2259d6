"""Paired differences of the runs of a sweep, to one of them or to another sweep."""

from __future__ import annotations

from pathlib import Path

import pytest

from duet.cli.main import main
from duet.errors import UserError
from duet.eval.running.grid import Grid
from duet.eval.running.sweep import run_grid
from duet.report.paired import paired_table
from tests.small_world import random_model, write_questions


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("paired")
    write_questions(root / "data", "pope", count=8)
    for name, methods, switches in (
        ("kept", ("cover", "cover[saliency=1]", "scope", "duet"), {"positions": "keep"}),
        ("renumbered", ("cover", "scope", "duet"), {"positions": "renumber"}),
        ("one", ("cover",), {}),
    ):
        grid = Grid(
            models={"small": random_model()},
            methods=methods,
            budgets={"few": 20.0, "fewer": 12.0},
            tasks=("pope",),
            data=str(root / "data"),
            output=str(root / "out" / name),
            batch_size=8,
            max_new_tokens=2,
            switches=switches,
            loading={"device": "cpu"},
        )
        run_grid(grid)
    return root / "out"


def test_equal_methods_differ_by_nothing(folder: Path) -> None:
    table = paired_table(folder / "kept", "scope", rows=["cover[saliency=1]", "duet"])
    shown = [row[0] for row in table.rows]
    assert shown == [
        "few, 20.0 tokens",
        "cover[saliency=1]",
        "duet",
        "fewer, 12.0 tokens",
        "cover[saliency=1]",
        "duet",
    ]
    assert all(record["average"] == [0.0, 0.0, 0.0] for record in table.records if record["method"] != "duet")
    for record in table.records:
        points, low, high = record["average"]
        assert low <= points <= high and record["average"] == record["pope"]


def test_a_difference_is_the_difference_of_the_percentages(folder: Path) -> None:
    table = paired_table(folder / "kept", "cover@few")
    whole = next(record for record in table.records if (record["method"], record["budget"]) == ("cover", "few"))
    assert whole["average"] == [0.0, 0.0, 0.0] and table.rows[1][2] == ""
    for record in table.records:
        assert record["against"] == "cover@few"
        assert record["average"][0] == pytest.approx(record["percent"] - whole["percent"])


def test_another_sweep_is_the_reference(folder: Path) -> None:
    table = paired_table(folder / "renumbered", versus=folder / "kept", by_task=True)
    assert table.header[-1] == "POPE"
    assert {record["against"] for record in table.records} >= {"scope@few", "duet@fewer"}
    assert any("kept" in note for note in table.notes)


def test_the_budgets_of_one_method_are_its_rows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", "paired", "--results", str(folder / "one"), "--against", "cover@few"]) == 0
    shown = capsys.readouterr().out
    assert "| Budget" in shown and "| fewer" in shown and "| cover" not in shown


@pytest.mark.parametrize(
    ("against", "message"),
    [
        ("vscan", "no run of vscan under budget 'few'"),
        ("cover@many", "under budget 'many'"),
        ("skope", "unknown method"),
    ],
)
def test_references_that_do_not_exist(folder: Path, against: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        paired_table(folder / "kept", against)


def test_arguments_that_do_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", "1", "--against", "scope"]) == 2
    assert main(["table", "paired"]) == 2
    assert main(["table", "paired", "--results", str(folder / "one"), "--plan"]) == 2
    shown = capsys.readouterr().err
    assert "are for table paired" in shown and "needs --results" in shown and "takes only" in shown
