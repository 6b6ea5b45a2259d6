"""The best shapes measured whole, with the flat one, the paper's and `duet_safe` beside them, and the choice.

A shape is refused if its worst stratum loses more than 1.25 times what the flat shape's worst one loses at the same
budget. Of shapes that the samples cannot tell apart, the one whose picture is seen in more layers is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from duet.budget import Budget
from duet.budget.schedules import DUET, FLAT, SAFE, Schedule
from duet.budget.shapes import fit_shape
from duet.errors import UserError
from duet.schedule.curves import BLIND, FEW_TOKENS, Asked, Curves
from duet.schedule.passes import Meter, divergence, force, full_answer

if TYPE_CHECKING:
    from duet.budget import Backbone
    from duet.engine.call import Compression
    from duet.schedule.candidates import Candidate

#: A shape may lose this many times what the flat one loses, in their worst strata.
WORSE_THAN_FLAT = 1.25
#: Shapes within this share of the best one's loss, and not told apart by the bootstrap, are ties.
TIE = 0.1
DRAWS, ENDS = 1000, (2.5, 97.5)
#: Multiples of the average at which flat shapes are measured for g.
FLAT_COUNTS = (1, 2, 4)
FLAT_NAME = "flat"


@dataclass(frozen=True)
class Trial:
    """A shape measured on all samples.

    Attributes:
        name: for the table.
        shape, budget: without and with counts; foretold: D by the curves, None for references.
        rows: stratum -> divergence of each sample, in nats.
        shares: stratum -> D; mean: over the strata; ends: of its 95 % interval.
        against_flat: ends of the interval of its D minus the flat shape's.
        refused: why, or "".
    """

    name: str
    shape: Schedule
    budget: Budget
    rows: dict[str, np.ndarray]
    shares: dict[str, float]
    mean: float
    ends: tuple[float, float]
    foretold: float | None = None
    against_flat: tuple[float, float] | None = None
    refused: str = ""

    @property
    def worst(self) -> float:
        """D of the stratum that loses most."""
        return max(self.shares.values())


@dataclass
class Judge:
    """Measures shapes.

    Attributes:
        model, compression: attached, and the method's parts.
        asked: all samples, with their curves.
        curves: for the strata and ceilings.
        backbone: sizes, with a usual prompt.
        own: the method's schedule; method: its name.
        measure: what averages count.
        few: the budget of the curves with few tokens.
        meter: counts.
        told: progress.
    """

    model: Any
    compression: Compression
    asked: Sequence[Asked]
    curves: Curves
    backbone: Backbone
    own: Schedule
    method: str
    measure: str
    few: Budget
    meter: Meter
    told: Callable[[str], None]
    _flat: dict[float, Trial] = field(default_factory=dict)

    def try_budget(self, name: str, shape: Schedule, budget: Budget, foretold: float | None = None) -> Trial:
        """Measure one shape on all samples."""
        parts = self.compression.under(budget, self.curves.depth)
        rows: dict[str, list[float]] = {stratum: [] for stratum in self.curves.strata}
        for one in self.asked:
            if one.stratum in rows:
                forced = force(self.model, parts, one.inputs, one.answer, self.meter)
                rows[one.stratum].append(divergence(one.full, forced.run(forced.start(), 0, budget)[1]))
        self.told(f"measured whole: {name}")
        found = {stratum: np.array(values) for stratum, values in rows.items()}
        shares = {stratum: float(values.mean()) / self.curves.blind[stratum] for stratum, values in found.items()}
        draws = self._draws(found)
        low, high = np.percentile(draws, ENDS)
        mean = float(np.mean(list(shares.values())))
        return Trial(name, shape, budget, found, shares, mean, (float(low), float(high)), foretold)

    def try_shape(self, shape: Schedule, average: float) -> Trial:
        """Measure a named shape at an average.

        Raises:
            UserError: the method cannot have it.
        """
        fitted = fit_shape(self.own, shape, self.backbone, self.method)
        budget = Budget.solve(average, self.backbone, schedule=fitted, measure=self.measure)
        return self.try_budget(shape.name, shape, budget)

    def flat_losses(self, average: float) -> dict[int, float]:
        """Number of tokens -> D of a flat shape, for three counts."""
        full = self.backbone.full
        for count in FLAT_COUNTS:
            wanted = count * average
            if wanted < 0.9 * full:
                self._flat[count] = self.try_shape(FLAT, wanted)
        losses = {round(trial.budget.average(self.backbone)): trial.mean for trial in self._flat.values()}
        if 1 in self.own.stages:
            losses[self.few.entered(self.backbone)] = self.curves.mean(("flat", FEW_TOKENS, 0))
        return losses

    def final(self, average: float, best: Sequence[Candidate]) -> tuple[list[Trial], Trial]:
        """Measure the references and the best candidates.

        Args:
            average: visual tokens per layer.
            best: candidates, least foretold loss first.

        Returns:
            all trials, the flat one first, and the chosen one.
        """
        flat = self._flat.get(1) or self.try_shape(FLAT, average)
        trials = [flat]
        for shape in (SAFE, DUET):
            try:
                trials.append(self.try_shape(shape, average))
            except UserError as error:
                self.told(f"{shape.name} is left out: {error}")
        known = [trial.budget for trial in trials]
        for number, one in enumerate(best, start=1):
            if one.budget not in known:
                trials.append(self.try_budget(f"candidate {number}", one.shape, one.budget, one.foretold))
        judged = [self._judged(trial, flat) for trial in trials]
        return judged, self._chosen([trial for trial in judged if not trial.refused])

    def _judged(self, trial: Trial, flat: Trial) -> Trial:
        limit = WORSE_THAN_FLAT * flat.worst
        worst = max(trial.shares, key=lambda stratum: trial.shares[stratum])
        why = f"{worst}: {trial.worst:.3f}, more than {limit:.3f}" if trial.worst > limit else ""
        return replace(trial, refused=why, against_flat=self._against(trial, flat))

    def _chosen(self, trials: Sequence[Trial]) -> Trial:
        best = min(trials, key=lambda trial: trial.mean)
        ties = [
            trial
            for trial in trials
            if trial is best or (trial.mean <= (1 + TIE) * best.mean and self._against(trial, best)[0] <= 0)
        ]
        seen = {id(trial): sum(count > 0 for count in trial.budget.tokens_per_layer(self.backbone)) for trial in ties}
        return min(ties, key=lambda trial: (-seen[id(trial)], trial.mean))

    def _against(self, trial: Trial, other: Trial) -> tuple[float, float]:
        low, high = np.percentile(self._draws(trial.rows) - self._draws(other.rows), ENDS)
        return float(low), float(high)

    def _draws(self, rows: Mapping[str, np.ndarray]) -> np.ndarray:
        """D on every draw `[DRAWS]`; the same samples are drawn for every shape."""
        random = np.random.default_rng(0)
        shares = []
        for stratum, values in rows.items():
            blind = np.array([row[BLIND] for row in self.curves.rows[stratum]])
            index = random.integers(len(values), size=(DRAWS, len(values)))
            shares.append(values[index].mean(1) / blind[index].mean(1).clip(1e-9))
        return np.mean(shares, axis=0)

    def agreement(self, trial: Trial, longest: int) -> tuple[int, int]:
        """Free answers under a shape that equal the full model's, of how many: drift that teacher forcing hides."""
        same = 0
        parts = self.compression.under(trial.budget, self.curves.depth)
        for one in self.asked:
            found = full_answer(self.model, parts, one.inputs, longest)
            same += len(found) == len(one.answer) and bool((found == one.answer).all())
        return same, len(self.asked)


def typical(backbone: Backbone, visual: Sequence[int], pictures: Sequence[int]) -> Backbone:
    """The model with a usual prompt of the samples, where the number of visual tokens depends on the picture."""
    if not backbone.capped:
        return backbone
    count = max(1, round(float(np.median(pictures))))
    return backbone.with_patches(max(1, round(float(np.median(visual)) / count)), count)
