"""Finds results of `duet eval`: every `metrics.json` below a folder, as one `Run` each.

    [run.value for run in find_runs(Path("outputs")) if run.task == "pope" and run.method == "duet_c_all"]

The video benchmarks are published as the accuracy of a judge: `judge.json` next to `metrics.json` (`duet judge --json`)
gives their value if the judge has judged every answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from duet.budget import Budget
from duet.config import build
from duet.errors import UserError
from duet.eval.reading import name_of, number_of, read_json
from duet.eval.scoring.subset import Subset
from duet.report.metrics import FILE, method_of, read_metrics, subset_of

JUDGED = ("tgif", "msvd", "msrvtt")


@dataclass(frozen=True)
class Run:
    """One task answered by one model with one method and budget.

    Attributes:
        folder: with predictions.jsonl and metrics.json.
        task: benchmark.
        model: as given to `duet eval`.
        method: canonical name.
        budget: counts, layers, ratios.
        switches: non-default ones.
        metric: name of `value`.
        value: headline metric; None if the benchmark needs a judge and has not been judged yet.
        metrics: all metrics of the task.
        average: visual tokens per layer, by the budget.
        asked: questions; answered: of these with an answer.
        subset: of the benchmark that was asked; None for all of it.
        milliseconds: per question, up to the last token; None if nothing was measured.
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
    subset: Subset | None
    milliseconds: float | None

    @property
    def complete(self) -> bool:
        """Every question of the benchmark has an answer."""
        return self.subset is None and self.answered == self.asked


def find_runs(folder: Path, models: Sequence[str] = ()) -> list[Run]:
    """All runs below a folder.

    Args:
        folder: of any depth, such as the output of `duet eval` or `duet sweep`.
        models: patterns (`*-duet`) for a run's model, or its last part; empty for all.

    Raises:
        UserError: no such folder, no run of these models in it, or a file that is not a result.
    """
    if not folder.is_dir():
        raise UserError(f"no such folder of results: {folder}")
    runs = [read_run(path) for path in sorted(folder.rglob(FILE))]
    chosen = [run for run in runs if not models or any(called(run.model, pattern) for pattern in models)]
    if runs and not chosen:
        names = ", ".join(sorted({run.model for run in runs}))
        raise UserError(f"{folder} has no results of {', '.join(models)}; it has those of {names}")
    return chosen


def read_run(path: Path) -> Run:
    """One `metrics.json`.

    Raises:
        UserError: the file was not written by `duet eval`.
    """
    found = read_metrics(path)
    settings, counts, times = found["settings"], found["counts"], found["timing"]
    judged = found["task"] in JUDGED
    headline = (found["headline"]["name"], found["headline"]["value"])
    metric, value = _judged(path.with_name("judge.json")) if judged else headline
    spent = [times["prefill_ms"], times["decode_ms"]]
    return Run(
        folder=path.parent,
        task=found["task"],
        model=settings["model"],
        method=method_of(settings, path),
        budget=build(Budget, settings["budget"], f"{path}: settings.budget"),
        switches=settings["switches"],
        metric=metric,
        value=value,
        metrics=found["metrics"],
        average=found["tokens"]["computed_average"] or 0.0,
        asked=counts["asked"],
        answered=counts["scored"],
        subset=subset_of(found, path),
        milliseconds=None if None in spent else sum(spent),
    )


def _judged(path: Path) -> tuple[str, float | None]:
    """The judge, and the accuracy if all answers were judged."""
    if not path.exists():
        return "not judged", None
    found = read_json(path)
    try:
        counts = found["counts"]
        whole = counts["judged"] == counts["rows"]
        judge = name_of(found["headline"], "judge", f"{path}: headline")
        return f"accuracy by {judge}", number_of(found["metrics"], "accuracy", f"{path}: metrics") if whole else None
    except (KeyError, TypeError):
        raise UserError(f"{path}: not a result of `duet judge --json`; judge the answers again") from None


def called(model: str, pattern: str) -> bool:
    """Whether a model's name, or the last part of its path, fits a pattern (`*-duet`)."""
    return fnmatch(model, pattern) or fnmatch(Path(model).name, pattern)
