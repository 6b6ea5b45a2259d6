"""How sure an average percentage of the full model is: a paired bootstrap over pictures.

The paper's average is the mean over tasks of score / score of the full model. Each draw takes as many pictures as a
task has, with replacement, all questions of a picture together, and the same pictures for both models: what is hard
for both moves both. The interval is the middle 95 % of the averages that the draws give.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar
from zlib import crc32

import numpy as np

from duet.eval.types import Decided

DRAWS = 1000
#: Percentiles of the interval's ends.
ENDS = (2.5, 97.5)
Name = TypeVar("Name", bound=Hashable)
Metric = Callable[[Sequence[Decided]], float]


def resampled_scores(
    runs: Mapping[Name, Sequence[Decided]], metric: Metric, task: str, draws: int = DRAWS
) -> dict[Name, np.ndarray]:
    """The score of every run on every draw.

    Args:
        runs: the decided questions of each run, the same questions in the same order.
        metric: headline score of decided questions.
        task: seeds the draws, so that the pictures do not depend on which runs there are.
        draws: how many.

    Returns:
        `[draws]` for each run.
    """
    units = _pictures(next(iter(runs.values())))
    random = np.random.default_rng(crc32(task.encode()))
    counts = [np.bincount(random.integers(len(units), size=len(units)), minlength=len(units)) for _ in range(draws)]
    copies = int(max(count.max() for count in counts))
    return {
        name: np.array([metric(rows) for rows in _draws(decided, units, counts, copies)])
        for name, decided in runs.items()
    }


def interval(scores: Sequence[np.ndarray], full: Sequence[np.ndarray]) -> tuple[float, float] | None:
    """Ends of the interval of the average percentage, out of a task's scores on its draws; None if `full` is ever 0."""
    if any((task == 0).any() for task in full):
        return None
    shares = np.mean([100 * ours / theirs for ours, theirs in zip(scores, full, strict=True)], axis=0)
    low, high = np.percentile(shares, ENDS)
    return float(low), float(high)


def _pictures(decided: Sequence[Decided]) -> list[list[int]]:
    """Question numbers of each picture; a question without picture stands alone."""
    units: dict[Hashable, list[int]] = {}
    for number, row in enumerate(decided):
        units.setdefault(row.sample.images or row.sample.key, []).append(number)
    return list(units.values())


def _draws(
    decided: Sequence[Decided], units: list[list[int]], counts: list[np.ndarray], copies: int
) -> Iterator[list[Decided]]:
    """The questions of every draw. A picture that is drawn twice is two pictures, with names of their own."""
    drawn = [
        [[_renamed(decided[number], f"{unit}-{copy}") for number in numbers] for copy in range(copies)]
        for unit, numbers in enumerate(units)
    ]
    for count in counts:
        yield [row for unit, times in enumerate(count) for copy in drawn[unit][:times] for row in copy]


def _renamed(row: Decided, name: str) -> Decided:
    return replace(row, sample=replace(row.sample, id=name))
