"""Confidence interval of an average percentage of the full model: a paired bootstrap over pictures.

The paper's average is the mean over tasks of score / score of the full model. Each draw takes as many pictures as a
task has, with replacement, with all questions of a picture, and the same pictures for both models. The interval is the
middle 95 % of the draws' averages.

A headline is a function of sums over pictures (`FileBenchmark.sums`), so all draws are one matrix product: how
often a draw has each picture `[draws, pictures]`, times what each picture adds `[pictures, sums]`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar
from zlib import crc32

import numpy as np

from duet.eval.scoring.benchmark import FileBenchmark
from duet.eval.types import Decided

DRAWS = 1000
#: Percentiles of the interval's ends.
ENDS = (2.5, 97.5)
#: Draws per matrix: 11 MB for 14233 pictures.
TOGETHER = 100
Name = TypeVar("Name", bound=Hashable)


def resampled_scores(
    runs: Mapping[Name, Sequence[Decided]], benchmark: FileBenchmark, draws: int = DRAWS
) -> dict[Name, np.ndarray]:
    """The headline score of every run on every draw.

    Args:
        runs: the decided questions of each run, the same questions in the same order.
        benchmark: of the headline; its name seeds the draws, so the pictures do not depend on the runs.
        draws: how many.

    Returns:
        `[draws]` for each run.
    """
    units = _pictures(next(iter(runs.values())))
    random = np.random.default_rng(crc32(benchmark.name.encode()))
    added = {name: _added(benchmark, decided, units) for name, decided in runs.items()}
    scores: dict[Name, list[np.ndarray]] = {name: [] for name in runs}
    for start in range(0, draws, TOGETHER):
        times = [_times(random, len(units)) for _ in range(min(TOGETHER, draws - start))]
        for name, (fields, sums) in added.items():
            totals = np.array(times, dtype=float) @ sums
            drawn = benchmark.headline(dict(zip(fields, totals.T, strict=True)))
            scores[name].append(np.broadcast_to(drawn, len(times)))
    return {name: np.concatenate(parts) for name, parts in scores.items()}


def interval(scores: Sequence[np.ndarray], full: Sequence[np.ndarray]) -> tuple[float, float] | None:
    """Ends of the interval of the average percentage, from the tasks' scores on the draws; None if `full` is ever 0."""
    if any((task == 0).any() for task in full):
        return None
    low, high = np.percentile(shares_of(scores, full), ENDS)
    return float(low), float(high)


def shares_of(scores: Sequence[np.ndarray], full: Sequence[np.ndarray]) -> np.ndarray:
    """The average percentage of every draw, `[draws]`; one array per task."""
    return np.mean([100 * ours / theirs for ours, theirs in zip(scores, full, strict=True)], axis=0)


def _times(random: np.random.Generator, pictures: int) -> np.ndarray:
    """How often a draw has each picture."""
    return np.bincount(random.integers(pictures, size=pictures), minlength=pictures)


def _pictures(decided: Sequence[Decided]) -> list[list[int]]:
    """Question numbers of each picture or video; a question without either forms its own group."""
    units: dict[Hashable, list[int]] = {}
    for number, row in enumerate(decided):
        units.setdefault(row.sample.images or row.sample.video or row.sample.key, []).append(number)
    return list(units.values())


def _added(
    benchmark: FileBenchmark, decided: Sequence[Decided], units: list[list[int]]
) -> tuple[list[str], np.ndarray]:
    """Names of the sums, and what each picture adds to them, `[pictures, sums]`."""
    found = [benchmark.sums([decided[number] for number in numbers]) for numbers in units]
    fields = list(dict.fromkeys(name for sums in found for name in sums))
    return fields, np.array([[sums.get(name, 0.0) for name in fields] for sums in found])
