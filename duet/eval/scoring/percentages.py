"""Shares in percent and their counts."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from duet.eval.types import Decided


def percent(part: float, whole: int) -> float:
    """`part` of `whole` in percent; 0 / 0 is 0."""
    return 100 * part / whole if whole else 0.0


def shares(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    """`percent` of arrays."""
    return 100 * np.divide(parts, wholes, out=np.zeros(np.broadcast(parts, wholes).shape), where=wholes != 0)


def accuracy(rows: Iterable[Decided]) -> tuple[float, dict[str, int]]:
    """Right answers in percent, and the counts."""
    values = [row.value for row in rows]
    right = sum(value == 1 for value in values)
    return percent(right, len(values)), {"rows": len(values), "right": right}


def accuracies(parts: dict[str, list[Decided]]) -> tuple[dict[str, float], dict[str, dict[str, int]]]:
    """`accuracy` of every part: percentages by name, counts by name."""
    both = {name: accuracy(rows) for name, rows in parts.items()}
    return {name: value for name, (value, _) in both.items()}, {name: tally for name, (_, tally) in both.items()}


def by_group(rows: Iterable[Decided]) -> dict[str, list[Decided]]:
    """The rows by group, groups in order of appearance."""
    found: dict[str, list[Decided]] = {}
    for row in rows:
        found.setdefault(row.group, []).append(row)
    return found
