"""Configurations take turns on one model: interleaved rounds for times, one call each for peak memory."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from benchmarks.measure import Stopwatch, peak_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.configurations import Configuration


@dataclass(frozen=True)
class Rounds:
    """The settings of a measurement.

    Attributes:
        model: stock; compression is attached during a turn.
        runs: the configurations.
        warmup: rounds discarded; repeats: rounds measured.
        clock: a name of `CLOCKS`.
    """

    model: Any
    runs: Sequence[Configuration]
    warmup: int
    repeats: int
    clock: str = "wall"

    def samples(
        self, label: str, function: Callable[[Configuration, Stopwatch], dict[str, float]]
    ) -> dict[str, list[dict[str, float]]]:
        """Measurements of every round, by name of the configuration."""
        found: dict[str, list[dict[str, float]]] = {run.name: [] for run in self.runs}
        turns = [(number, run) for number in range(self.warmup + self.repeats) for run in self.runs]
        for number, run in tqdm(turns, desc=label):
            gc.collect()
            with run.attached(self.model):
                sample = function(run, Stopwatch(self.model.device, self.clock))
            if number >= self.warmup:
                found[run.name].append(sample)
        return found

    def peaks(self, function: Callable[[], Any]) -> dict[str, int]:
        """Peak bytes of a call, by name of the configuration; gradients that it leaves are counted, then freed."""
        found = {}
        for run in self.runs:
            gc.collect()
            with run.attached(self.model):
                found[run.name] = peak_bytes(self.model.device, function)
            self.model.zero_grad(set_to_none=True)
        return found
