"""The smallest budget within a loss: by the whole interval, per model and method, with a reason if there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from duet.budget import Budget
from duet.cli.main import main
from duet.errors import UserError
from duet.eval.running.decisions import write_decisions
from duet.eval.types import Decided, Prediction, Sample
from duet.report.choice import find_choices
from tests.result_files import write_run

QUESTIONS = 400
BUDGETS = {80: Budget(80, 0), 40: Budget(40, 0), 20: Budget(20, 0), 10: Budget(10, 0)}


def run(root: Path, right: int, method: str = "none", budget: Budget | None = None, task: str = "gqa", **more) -> Path:
    """A result with so many right answers out of `QUESTIONS`: the full model's right ones go first."""
    folder = write_run(root, task, 100 * right / QUESTIONS, method, budget, backbone="mini", asked=QUESTIONS, **more)
    rows = []
    for number in range(QUESTIONS):
        sample = Sample(f"{number}", f"{number}:a", "?", images=(f"{number}.png",), answer="yes")
        said = "yes" if number < right else "no"
        rows.append(Decided(sample, Prediction(said, 0), said, float(said == "yes")))
    write_decisions(folder, rows, {})
    return folder


@pytest.fixture
def results(tmp_path: Path) -> Path:
    run(tmp_path, 300)
    for tokens, right in ((80, 300), (40, 299), (20, 296), (10, 250)):
        run(tmp_path, right, "visionzip", BUDGETS[tokens])
    return tmp_path


def test_the_whole_interval_has_to_be_within(results: Path) -> None:
    (wide,) = find_choices(results, within=10)
    assert wide.chosen is not None and wide.chosen.tokens == 20
    (narrow,) = find_choices(results, within=2)
    assert narrow.likely is not None and narrow.likely.tokens == 20  # 98.7 %
    assert narrow.chosen is not None and narrow.chosen.tokens == 40  # the interval of 20 goes below 98 %
    assert narrow.likely.ends[0] < 98 < narrow.likely.percent
    assert [option.tokens for option in narrow.options] == [10, 20, 40, 80]
    assert narrow.options[-1].ends == (100.0, 100.0)


def test_methods_models_and_switches_are_apart(results: Path) -> None:
    run(results, 240, model="other")
    run(results, 239, "visionzip", BUDGETS[20], model="other")
    run(results, 300, "duet_c", Budget(20, 4, layers=(4, 6), ratios=(0.5, 0.0)))
    run(results, 300, "visionzip", BUDGETS[10], switches={"positions": "keep"})
    found = {
        (choice.model.split("/")[-1], choice.method, *choice.switches): choice for choice in find_choices(results, 3)
    }
    assert set(found) == {
        ("llava-1.5-7b-hf", "visionzip"),
        ("llava-1.5-7b-hf", "visionzip", "positions"),
        ("llava-1.5-7b-hf", "duet_c"),
        ("other", "visionzip"),
    }
    assert found["other", "visionzip"].options[0].percent == pytest.approx(100 * 239 / 240)
    assert [choice.method for choice in find_choices(results, 3, ["other"])] == ["visionzip"]
    assert {choice.method for choice in find_choices(results, 3, methods=["duet_c"], models=["llava*"])} == {"duet_c"}


def test_only_budgets_with_all_benchmarks_are_compared(results: Path) -> None:
    run(results, 200, task="pope")
    run(results, 199, "visionzip", BUDGETS[40], task="pope")
    (both,) = find_choices(results, within=5)
    assert [option.tokens for option in both.options] == [40] and len(both.skipped) == 3
    (one,) = find_choices(results, within=5, tasks=["gqa"])
    assert len(one.options) == 4 and not one.skipped


def test_what_cannot_be_compared_is_an_error(results: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no result of .* with all tokens on textvqa"):
        find_choices(results, 1, tasks=["textvqa"])
    with pytest.raises(UserError, match="no compressed results of duet_c"):
        find_choices(results, 1, methods=["duet_c"])
    folder = run(results, 300, "visionzip", BUDGETS[40])
    with pytest.raises(UserError, match="results of the same kind"):
        find_choices(results, 1)
    rows = folder / "rows.jsonl"
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[1:]))
    for path in results.rglob("metrics.json"):
        content = json.loads(path.read_text())
        if content["settings"]["budget"].get("dominant") == 40 and path.parent != folder:
            path.unlink()
    with pytest.raises(UserError, match="different questions"):
        find_choices(results, 1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no results"):
        find_choices(tmp_path / "empty", 1)


def test_the_command_prints_a_table_and_json(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["budget", "choose", str(results), "--draws", "200", "--within"]
    assert main([*words, "10%"]) == 0
    shown = capsys.readouterr().out
    assert "{dominant: 20}" in shown and "average over gqa" in shown
    assert main([*words, "0.1%", "--json"]) == 0
    (choice,) = json.loads(capsys.readouterr().out)
    assert choice["chosen"]["tokens"] == 80 and choice["within_percent"] == 0.1
    assert len(choice["options"]) == 4 and choice["chosen"]["percent_low"] == 100
    assert main([*words, "2"]) == 0
    assert "20.0 tokens have 98.7 %, but more questions are needed to be sure" in capsys.readouterr().out


def test_no_budget_that_is_enough_is_said_and_ends_with_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, 300)
    run(tmp_path, 150, "visionzip", BUDGETS[40])
    assert main(["budget", "choose", str(tmp_path), "--within", "1%"]) == 3
    assert "the best of 1 budgets has 50.0 %" in capsys.readouterr().out


@pytest.mark.parametrize("loss", ["0", "100%", "-1", "nan", "few", ""])
def test_a_loss_that_is_none_is_refused(loss: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["budget", "choose", str(tmp_path), f"--within={loss}"])
    assert stop.value.code == 2 and capsys.readouterr().err.count("\n") == 1
