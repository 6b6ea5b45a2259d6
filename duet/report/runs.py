"""Finds what `duet eval` has written: every `metrics.json` below a folder, as one `Run` each.

    [run.value for run in find_runs(Path("outputs")) if run.task == "pope" and run.method == "duet_c_all"]

The video benchmarks are published as the accuracy of a judge: `judge.json` beside `metrics.json` (`duet judge --json`)
gives their value, as long as the judge has seen every answer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from duet.budget import Budget
from duet.errors import UserError
from duet.registry import find_method

JUDGED = ("tgif", "msvd", "msrvtt")


@dataclass(frozen=True)
class Run:
    """One task answered by one model under one method and budget.

    Attributes:
        folder: with predictions.jsonl and metrics.json.
        task: benchmark.
        model: as it was given to `duet eval`.
        method: canonical name.
        budget: counts, layers, ratios.
        switches: that were not the method's own.
        metric: what `value` is.
        value: headline metric; None where the benchmark needs a judge who has not spoken yet.
        metrics: all metrics of the task.
        average: visual tokens per layer, by the budget.
        asked: questions; answered: of these with an answer.
        limit: of `duet eval --limit`; None for all questions.
        milliseconds: per question, up to the last token; None where nothing was measured.
    """

    folder: Path
    task: str
    model: str
    method: str
    budget: Budget
    switches: dict[str, str]
    metric: str
    value: float | None
    metrics: dict[str, float]
    average: float
    asked: int
    answered: int
    limit: int | None
    milliseconds: float | None

    @property
    def complete(self) -> bool:
        """Every question of the benchmark has an answer."""
        return self.limit is None and self.answered == self.asked


def find_runs(folder: Path, models: Sequence[str] = ()) -> list[Run]:
    """All runs below a folder.

    Args:
        folder: of any depth, such as the output of `duet eval` or `duet sweep`.
        models: patterns (`*-duet`) that a run's model, or its last part, must match one of; empty for all.

    Raises:
        UserError: no such folder, no run of these models in it, or a file that is no result.
    """
    if not folder.is_dir():
        raise UserError(f"no such folder of results: {folder}")
    runs = [read_run(path) for path in sorted(folder.rglob("metrics.json"))]
    chosen = [run for run in runs if not models or any(_called(run.model, pattern) for pattern in models)]
    if runs and not chosen:
        names = ", ".join(sorted({run.model for run in runs}))
        raise UserError(f"{folder} has no results of {', '.join(models)}; it has those of {names}")
    return chosen


def read_run(path: Path) -> Run:
    """One `metrics.json`.

    Raises:
        UserError: the file was not written by `duet eval`.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        settings, counts, times = found["settings"], found["counts"], found["timing"]
        judged = found["task"] in JUDGED
        metric, value = _judged(path.with_name("judge.json")) if judged else tuple(found["headline"].values())
        spent = [times["prefill_ms"], times["decode_ms"]]
        return Run(
            folder=path.parent,
            task=found["task"],
            model=settings["model"],
            method=find_method(settings["method"])[0],
            budget=Budget(**settings["budget"]),
            switches=settings["switches"],
            metric=metric,
            value=value,
            metrics=found["metrics"],
            average=found["tokens"]["computed_average"],
            asked=counts["asked"],
            answered=counts["scored"],
            limit=settings["limit"],
            milliseconds=None if None in spent else sum(spent),
        )
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: not a result of `duet eval` ({type(error).__name__}: {error})") from error


def _judged(path: Path) -> tuple[str, float | None]:
    """Who judged, and the accuracy if that was all answers."""
    if not path.exists():
        return "not judged", None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    counts = found["counts"]
    whole = counts["judged"] == counts["rows"]
    return f"accuracy by {found['headline']['judge']}", found["metrics"]["accuracy"] if whole else None


def _called(model: str, pattern: str) -> bool:
    return fnmatch(model, pattern) or fnmatch(Path(model).name, pattern)
