"""The existing results of a grid (`duet.eval.running.grid`) in numbers: one `Result` per run.

Scores are the tasks' headlines. A run's average percentage is the paper's: mean over tasks of score / score of the
first model without compression, the reference of the experiment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, cast

import numpy as np

from duet.config import load_config
from duet.errors import UserError
from duet.eval.benchmarks import get
from duet.eval.running.decisions import read_decisions
from duet.eval.running.grid import Cell, Grid
from duet.eval.running.sweep import GRID_FILE
from duet.eval.scoring.benchmark import FileBenchmark
from duet.eval.scoring.subset import Subset
from duet.eval.types import Decided
from duet.method_table import find_method
from duet.report.bootstrap import DRAWS, interval, resampled_scores
from duet.report.metrics import FILE, read_metrics, subset_of
from duet.report.runs import called


@dataclass(frozen=True)
class Result:
    """One run.

    Attributes:
        cell: model, method, budget.
        found: content of metrics.json by task; missing tasks are absent.
        percent: average percentage of the full model; None while a task is missing on either side.
        ends: of its 95 % interval; None like `percent`, and for the full model itself.
    """

    cell: Cell
    found: Mapping[str, Mapping[str, Any]]
    percent: float | None = None
    ends: tuple[float, float] | None = None

    @property
    def scores(self) -> dict[str, float]:
        """Headline score by task."""
        return {task: found["headline"]["value"] for task, found in self.found.items()}

    @property
    def subsets(self) -> dict[str, Subset]:
        """Tasks of which a subset was asked, with the subset."""
        parts = {task: subset_of(found, task) for task, found in self.found.items()}
        return {task: part for task, part in parts.items() if part is not None}

    @property
    def tokens(self) -> float | None:
        """Visual tokens per layer, as measured, mean over the tasks."""
        return _mean(found["tokens"]["average"] for found in self.found.values())

    @property
    def prefill_ms(self) -> float | None:
        """Milliseconds per question up to its first token, mean over the tasks."""
        return _mean(found["timing"]["prefill_ms"] for found in self.found.values())

    @property
    def gflops(self) -> float | None:
        """10^9 operations per question up to its first token, by the formula, mean over the tasks."""
        parts = ("tower", "projector", "prefill")
        return _mean(sum(found["flops"][part] for part in parts) / 1e9 for found in self.found.values())


def read_grid(folder: Path) -> Grid:
    """The experiment of a `duet sweep` folder.

    Raises:
        UserError: there is none.
    """
    path = folder / GRID_FILE
    if not path.is_file():
        raise UserError(f"{folder} holds no {GRID_FILE}: give the output folder of `duet sweep`")
    # read the given folder, even if it was moved after the sweep
    return replace(load_config(Grid, path), output=str(folder))


def read_results(grid: Grid, draws: int = DRAWS) -> list[Result]:
    """All runs of the experiment, in order.

    Args:
        grid: the experiment.
        draws: of the bootstrap; 0 for no intervals.

    Raises:
        UserError: no results, or a damaged one.
    """
    cells = list(grid.cells())
    tasks = [cast(FileBenchmark, get(task)) for task in grid.tasks]
    found = {cell: _read(grid.folder(cell), [task.name for task in tasks]) for cell in cells}
    if not any(found.values()):
        raise UserError(f"{grid.output} holds no results yet: run `duet sweep` on its {GRID_FILE}")
    full = cells[0]
    whole = [cell for cell in cells if len(found[cell]) == len(tasks)]
    resampled = [_resample(grid, task, whole, draws) for task in tasks] if draws and full in whole else []
    results = []
    for cell in cells:
        result = Result(cell, found[cell])
        if cell in whole and full in whole:
            percent = percentage(result.scores, Result(full, found[full]).scores)
            scores = [task[cell] for task in resampled]
            ends = interval(scores, [task[full] for task in resampled]) if resampled and cell != full else None
            result = Result(cell, found[cell], percent, ends)
        results.append(result)
    return results


def choose(results: Sequence[Result], models: Sequence[str] = (), method: str | None = None) -> list[Result]:
    """The results of some models (patterns), without compression and with one method.

    Args:
        results: of an experiment; percentages stay relative to its first model.
        models: empty for all; method: None for all.

    Raises:
        UserError: there are none.
    """
    kept = [result for result in results if not models or any(called(result.cell.model, each) for each in models)]
    if not kept:
        there = ", ".join(dict.fromkeys(result.cell.model for result in results))
        raise UserError(f"no results of model {', '.join(models)}; there are those of {there}")
    if method is None:
        return kept
    wanted = find_method(method).name
    kept = [result for result in kept if find_method(result.cell.method).name in ("none", wanted)]
    if all(result.cell.method == "none" for result in kept):
        there = ", ".join(dict.fromkeys(result.cell.method for result in results if result.cell.method != "none"))
        raise UserError(f"no results of method {method}; there are those of {there}")
    return kept


def percentage(scores: Mapping[str, float], full: Mapping[str, float]) -> float | None:
    """Mean over the tasks of score / full score in percent; None if a full score is 0."""
    if not all(full.values()):
        return None
    return fmean(100 * scores[task] / full[task] for task in full)


def _read(folder: Path, tasks: list[str]) -> dict[str, dict[str, Any]]:
    paths = {task: folder / task / FILE for task in tasks}
    return {task: read_metrics(path) for task, path in paths.items() if path.exists()}


def _resample(grid: Grid, benchmark: FileBenchmark, cells: list[Cell], draws: int) -> dict[Cell, np.ndarray]:
    decided = {cell: read_decisions(grid.folder(cell) / benchmark.name) for cell in cells}
    check_same_questions({str(grid.folder(cell) / benchmark.name): rows for cell, rows in decided.items()})
    return resampled_scores(decided, benchmark, draws)


def check_same_questions(runs: Mapping[str, Sequence[Decided]]) -> None:
    """Check that runs to be compared in pairs have the same questions; `runs` are rows by folder.

    Raises:
        UserError: two of them do not.
    """
    (first, rows), *others = runs.items()
    keys = [row.sample.key for row in rows]
    for folder, compared in others:
        if [row.sample.key for row in compared] != keys:
            raise UserError(
                f"{first} and {folder} hold answers to different questions: they cannot be compared in pairs"
            )


def _mean(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
