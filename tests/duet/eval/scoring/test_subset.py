"""A limit draws a representative subset, and every place that shows its number says so."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from duet.cli.main import main
from duet.errors import UserError
from duet.eval.benchmarks import get
from duet.eval.scoring.subset import draw_subset
from duet.eval.types import Sample
from tests.small_world import random_model, write_questions


def lopsided() -> list[Sample]:
    """Like POPE's file: all of a category before the next."""
    sizes = {"adversarial": 300, "popular": 300, "random": 50}
    return [
        Sample(str(number), f"{category}:{number}", "?", group=category)
        for category, count in sizes.items()
        for number in range(count)
    ]


def drawn(limit: int, seed: int = 0) -> list[Sample]:
    return draw_subset(lopsided(), limit, seed, lambda sample: sample.group, lambda sample: sample.key)


def test_categories_have_equal_shares_as_far_as_they_have_questions() -> None:
    assert Counter(sample.group for sample in drawn(60)) == {"adversarial": 20, "popular": 20, "random": 20}
    assert sorted(Counter(sample.group for sample in drawn(61)).values()) == [20, 20, 21]
    assert Counter(sample.group for sample in drawn(250)) == {"adversarial": 100, "popular": 100, "random": 50}


def test_a_seed_decides_and_a_larger_limit_only_adds() -> None:
    assert drawn(60) == drawn(60)
    assert drawn(60) != drawn(60, seed=1)
    assert {sample.key for sample in drawn(60)} < {sample.key for sample in drawn(90)}
    places = [lopsided().index(sample) for sample in drawn(60)]
    assert places == sorted(places) and places != list(range(60))
    assert drawn(10_000) == lopsided()


def test_both_questions_of_an_mme_picture_stay_together(tmp_path: Path) -> None:
    root = write_questions(tmp_path, "MME", count=24)
    samples, subset = get("mme").load_subset(root, 9)
    assert subset is not None and (subset.questions, subset.of) == (len(samples), 14) == (8, 14)
    assert set(Counter(sample.id for sample in samples).values()) == {2}
    with pytest.raises(UserError, match="no question left with limit 1"):
        get("mme").load_subset(root, 1)


@pytest.mark.parametrize(("task", "folder"), [("seed", "seed_bench"), ("gqa", "gqa"), ("scienceqa", "scienceqa")])
def test_every_category_of_a_benchmark_is_in_a_subset(task: str, folder: str, tmp_path: Path) -> None:
    benchmark, root = get(task), write_questions(tmp_path, folder, count=24)
    every = {benchmark.category(sample) for sample in benchmark.load(root)}
    assert len(every) > 1
    assert {benchmark.category(sample) for sample in benchmark.load_subset(root, len(every))[0]} == every


def test_terminal_run_and_metrics_say_that_it_is_a_subset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_questions(tmp_path, "pope", count=12)
    words = ["eval", "--model", random_model(), "--tasks", "pope", "--data", str(data), "--max-new-tokens", "2"]
    words += ["--output", str(tmp_path / "out"), "--device", "cpu", "--limit", "6", "--seed", "4"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "6, a subset of" in shown and "with seed 4" in shown
    metrics, run = (json.loads((tmp_path / "out" / "pope" / name).read_text()) for name in ("metrics.json", "run.json"))
    assert metrics["subset"] == run["subset"] == {"questions": 6, "of": metrics["subset"]["of"], "seed": 4}
    assert metrics["subset"]["of"] > 6
    rows = [json.loads(line) for line in (tmp_path / "out" / "pope" / "rows.jsonl").read_text().splitlines()]
    assert Counter(row["group"] for row in rows) == {"adversarial": 2, "popular": 2, "random": 2}


@pytest.mark.parametrize(
    "words",
    [["--limit", "0"], ["--limit", "-1"], ["--seed", "3"], ["--limit", "5", "--seed", "-1"], ["--tasks", ""],
     ["--tasks", "pope,"], ["--budget", "true", "--method", "duet"], ["--budget", "", "--method", "duet"],
     ["--positions=", "--method", "duet", "--budget", "20"], ["--budget", "[1]", "--method", "duet"]],
)  # fmt: skip
def test_what_is_no_number_task_or_choice_is_refused(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["eval", "--model", random_model(), "--data", str(tmp_path), "--output", str(tmp_path / "out")]
    tasks = [] if "--tasks" in words else ["--tasks", "pope"]
    with pytest.raises(SystemExit) as stop:
        raise SystemExit(main([*base, *tasks, *words]))
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "error: " in error
    assert not (tmp_path / "out").exists()
