"""Intervals: nothing for a run against itself, the textbook's width for one score, pictures as the unit.

`slowly` is the bootstrap as it reads in words: every draw writes its questions out, and the benchmark sums them up.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from time import process_time
from zlib import crc32

import numpy as np
import pytest

from duet.eval.benchmarks import get
from duet.eval.types import Decided, Prediction, Sample
from duet.report.bootstrap import interval, resampled_scores
from tests.small_world import write_questions

FOLDERS = {
    "pope": "pope",
    "gqa": "gqa",
    "textvqa": "textvqa",
    "mme": "MME",
    "scienceqa": "scienceqa",
    "seed": "seed_bench",
}


def question(number: int, value: float, picture: str | None = None) -> Decided:
    name = picture or str(number)
    return Decided(
        Sample(name, str(number), "?", images=(name,), group="color", meta={"unasked": 0}), None, "yes", value, "color"
    )


def answered(task: str, root: Path, seed: int) -> list[Decided]:
    """A benchmark whose answers are right, wrong or missing by chance."""
    benchmark, chance = get(task), np.random.default_rng(seed)
    rows = []
    for sample in benchmark.load(write_questions(root, FOLDERS[task], count=24)):
        gold = sample.answer[0] if isinstance(sample.answer, list) else sample.answer
        text = str(chance.choice([gold, "yes", "no", "A", "blue"]))
        if chance.random() < 0.1:
            rows.append(Decided(sample, None, None, 0.0, sample.group))
        else:
            rows.append(Decided(sample, Prediction(text, 0), *benchmark.decide(sample, text), sample.group))
    return rows


def slowly(task: str, rows: list[Decided], draws: int) -> np.ndarray:
    units: dict[object, list[Decided]] = {}
    for row in rows:
        units.setdefault(row.sample.images or row.sample.key, []).append(row)
    pictures, random, scores = list(units.values()), np.random.default_rng(crc32(task.encode())), []
    for _ in range(draws):
        drawn = np.bincount(random.integers(len(pictures), size=len(pictures)), minlength=len(pictures))
        copies = [
            replace(row, sample=replace(row.sample, id=f"{unit}-{copy}"))
            for unit, times in enumerate(drawn)
            for copy in range(times)
            for row in pictures[unit]
        ]
        summary = get(task).summarise(copies)
        scores.append(summary.metrics[summary.headline])
    return np.array(scores)


@pytest.mark.parametrize("task", FOLDERS)
def test_every_draw_has_the_score_of_its_questions_written_out(task: str, tmp_path: Path) -> None:
    rows = answered(task, tmp_path, seed=3)
    summary = get(task).summarise(rows)
    found = resampled_scores({"run": rows}, get(task), 30)["run"]
    np.testing.assert_allclose(found, slowly(task, rows, 30), rtol=1e-12)
    whole = get(task).headline({name: np.array(value) for name, value in get(task).sums(rows).items()})
    assert float(whole) == pytest.approx(summary.metrics[summary.headline])


def test_a_thousand_draws_of_the_quickstart_take_seconds(tmp_path: Path) -> None:
    rows = {task: answered(task, tmp_path, seed=1) for task in FOLDERS}
    many = {
        task: [replace(row, sample=replace(row.sample, images=(f"{n}",))) for n, row in enumerate(found * 8)]
        for task, found in rows.items()
    }
    start = process_time()
    for task, found in many.items():
        resampled_scores(dict.fromkeys(range(20), found), get(task), 1000)
    assert process_time() - start < 5


def test_a_run_against_itself_is_certain_although_its_score_is_not():
    rows = [question(number, number % 3 > 0) for number in range(60)]
    scores = resampled_scores({"full": rows, "same": rows}, get("gqa"), 200)
    assert interval([scores["same"]], [scores["full"]]) == (100.0, 100.0)
    assert scores["full"].std() > 1


def test_width_of_one_score_is_the_binomial_one():
    rows = [question(number, number % 4 > 0) for number in range(400)]
    scores = resampled_scores({"run": rows}, get("gqa"), 1000)["run"]
    assert scores.mean() == pytest.approx(75, abs=0.3)
    assert scores.std() == pytest.approx(100 * (0.75 * 0.25 / 400) ** 0.5, rel=0.1)


def test_draws_depend_on_the_task_and_not_on_the_other_runs():
    rows = [question(number, number % 2) for number in range(50)]
    alone = resampled_scores({"a": rows}, get("gqa"), 20)["a"]
    beside = resampled_scores({"b": rows[::1], "a": rows}, get("gqa"), 20)["a"]
    assert np.array_equal(alone, beside)
    assert not np.array_equal(alone, resampled_scores({"a": rows}, get("textvqa"), 20)["a"])


def test_questions_about_one_video_are_drawn_together():
    rows = [
        Decided(Sample(str(n), str(n), "?", video=f"{n // 10}.mp4", answer="a"), None, "a", float(n < 10), "")
        for n in range(20)
    ]
    assert set(resampled_scores({"a": rows}, get("msvd"), 50)["a"]) == {0.0, 50.0, 100.0}


def test_no_interval_where_the_full_model_may_score_nothing():
    assert interval([np.ones(3)], [np.array([1.0, 0.0, 1.0])]) is None
