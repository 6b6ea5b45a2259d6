"""The results of a grid (`duet.eval.running.grid`) in numbers, as far as they are there: one `Result` per run.

Scores are the tasks' headlines. A run's average percentage is the paper's: mean over tasks of score / score of the
first model without compression, which all runs of the experiment are measured by.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, cast

import numpy as np

from duet.config import load_config
from duet.errors import UserError
from duet.eval.benchmarks import get
from duet.eval.running.answer_files import read_whole_lines
from duet.eval.running.grid import Cell, Grid
from duet.eval.running.sweep import GRID_FILE
from duet.eval.scoring.benchmark import FileBenchmark, decide_lines
from duet.eval.types import Decided
from duet.report.bootstrap import DRAWS, interval, resampled_scores


@dataclass(frozen=True)
class Result:
    """One run.

    Attributes:
        cell: model, method, budget.
        found: content of metrics.json by task; tasks that are not there are missing.
        percent: average percentage of the full model; None while a task is missing here or there.
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
    """The experiment that `duet sweep` has written into a folder.

    Raises:
        UserError: there is none.
    """
    path = folder / GRID_FILE
    if not path.is_file():
        raise UserError(f"{folder} holds no {GRID_FILE}: give the output folder of `duet sweep`")
    return load_config(Grid, path)


def read_results(grid: Grid, draws: int = DRAWS) -> list[Result]:
    """All runs of the experiment, in its order.

    Args:
        grid: the experiment.
        draws: of the bootstrap; 0 for no intervals, which needs no benchmark files.
    """
    cells = list(grid.cells())
    tasks = [cast(FileBenchmark, get(task)) for task in grid.tasks]
    found = {cell: _read(grid.folder(cell), [task.name for task in tasks]) for cell in cells}
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


def percentage(scores: Mapping[str, float], full: Mapping[str, float]) -> float | None:
    """Mean over the tasks of score / full score in percent; None where a full score is 0."""
    if not all(full.values()):
        return None
    return fmean(100 * scores[task] / full[task] for task in full)


def _read(folder: Path, tasks: list[str]) -> dict[str, dict[str, Any]]:
    paths = {task: folder / task / "metrics.json" for task in tasks}
    return {task: json.loads(path.read_text(encoding="utf-8")) for task, path in paths.items() if path.exists()}


def _resample(grid: Grid, benchmark: FileBenchmark, cells: list[Cell], draws: int) -> dict[Cell, np.ndarray]:
    samples = benchmark.load(Path(grid.data))[: grid.limit]

    def headline(decided: Any) -> float:
        summary = benchmark.summarise(decided)
        return summary.metrics[summary.headline]

    def decided(cell: Cell) -> list[Decided]:
        lines = read_whole_lines(grid.folder(cell) / benchmark.name / "predictions.jsonl")
        return decide_lines(benchmark, samples, list(lines))

    return resampled_scores({cell: decided(cell) for cell in cells}, headline, benchmark.name, draws)


def _mean(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
