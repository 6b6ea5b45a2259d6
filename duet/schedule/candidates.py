"""Shapes of an exact budget, and the loss that the curves foretell for each.

With w_l = W(l) - W(l+1), the share of the loss that a withdrawal from layer l on causes beyond one from l + 1 on, and
g(n), the loss of n tokens in every layer, a shape with n_l tokens in layer l loses

    D = sum of w_l g(n_l)  +  F - g  (frozen from f)  +  J - g  (entering at k)  +  sum of A_l  (away in l),

where F - g and J - g are what freezing and a late entry add to the same few tokens. Before the entry, w counts for the
first layer that sees the picture; where it is away and comes back, the loss A of all tokens takes its place. g is
linear in log n between the measured counts: concave, so that tokens go where w is. Interactions are not in it, hence
`choose.py` measures the best ones whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

import numpy as np

from duet.budget import Budget, Schedule
from duet.budget.counts import MEASURES
from duet.budget.shapes import fit_shape
from duet.errors import UserError
from duet.schedule.curves import ALL_TOKENS, FEW_TOKENS, Curves
from duet.schedule.passes import boundaries

if TYPE_CHECKING:
    from duet.budget import Backbone

#: Shares left after a drop.
FIRST, SECOND = (0.5, 1 / 3, 0.25), (0.25, 1 / 6, 0.1, 0.0)
#: Runs of layers that tokens may be away from: the ones that cost least per layer.
GAPS = 4
#: Shapes whose tokens per layer differ by less than this share are one.
SAME = 0.15


@dataclass(frozen=True)
class Candidate:
    """A shape at the wanted average.

    Attributes:
        shape, budget: without and with counts.
        foretold: its D by the curves.
        layers: visual tokens that enter each layer.
    """

    shape: Schedule
    budget: Budget
    foretold: float
    layers: tuple[int, ...]


@dataclass(frozen=True)
class Model:
    """The formula above, for one stratum or their mean.

    Attributes:
        density: w_l of each layer.
        counts: `(log n, g(n))`, ascending.
        frozen, entering: layer -> what freezing from there, or entering there, adds.
        away: layer -> what an absence from there up to the next of these layers costs.
    """

    density: np.ndarray
    counts: tuple[tuple[float, float], ...]
    frozen: dict[int, float]
    entering: dict[int, float]
    away: dict[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, curves: Curves, flat: Mapping[int, float], full: float) -> Model:
        """From the curves, and the D of flat shapes by their number of tokens; `full`: all tokens."""
        known = {0: 1.0, **curves.curve("withdrawn", ALL_TOKENS), curves.depth: 0.0}
        layers = sorted(known)
        # withdrawn later is never worse: noise is taken out from the end
        falling = np.maximum.accumulate([known[layer] for layer in reversed(layers)])[::-1]
        whole = np.interp(np.arange(curves.depth + 1), layers, falling)
        tokens = FEW_TOKENS if curves.curve("frozen", FEW_TOKENS) else ALL_TOKENS
        base = curves.mean(("flat", FEW_TOKENS, 0)) if tokens == FEW_TOKENS else 0.0

        def added(what: str) -> dict[int, float]:
            return {layer: max(0.0, value - base) for layer, value in curves.curve(what, tokens).items()}

        losses = np.maximum.accumulate([0.0, *(flat[count] for count in sorted(flat, reverse=True))])[::-1]
        counts = [*sorted(flat), full]
        points = [(0.0, max(1.0, float(losses[0])))] if counts[0] > 1 else []
        points += [(math.log(count), float(loss)) for count, loss in zip(counts, losses, strict=True)]
        return cls(
            whole[:-1] - whole[1:], tuple(points), added("frozen"), added("entering"), curves.curve("away", ALL_TOKENS)
        )

    def loss(self, budget: Budget, layers: Sequence[int]) -> float:
        """D of a shape."""
        depth = len(layers)
        entry, frozen = budget.entry_for(depth), budget.frozen_for(depth)
        density = self.density.copy()
        density[entry] += density[:entry].sum()
        density[:entry] = 0
        gone = budget.away_for(depth)
        density[list(gone)] = 0
        total = float(sum(w * self._count(n) for w, n in zip(density, layers, strict=True)))
        total += self._at(self.entering, entry) if entry else 0.0
        total += sum(loss for layer, loss in self.away.items() if layer in gone)
        return total + (self._at(self.frozen, frozen[0]) if frozen else 0.0)

    def gaps(self) -> list[tuple[int, int]]:
        """Runs of layers `(first, after the last)` whose absence adds least per layer."""
        ends, places = dict(pairwise(boundaries(len(self.density)))), sorted(self.away)
        runs = []
        for first, start in enumerate(places):
            for last in range(first, len(places)):
                end = ends[places[last]]
                lost = sum(self.away[place] for place in places[first : last + 1])
                runs.append((lost / (end - start), (start, end)))
        return [span for _, span in sorted(runs)[:GAPS]]

    def _count(self, tokens: int) -> float:
        places, losses = zip(*self.counts, strict=True)
        return 1.0 if tokens < 1 else float(np.interp(math.log(tokens), places, losses))

    @staticmethod
    def _at(curve: Mapping[int, float], layer: int) -> float:
        return float(np.interp(layer, list(curve), list(curve.values())))


def shapes(
    depth: int,
    entries: Sequence[int],
    ranks: bool,
    freezes: bool,
    late: bool,
    gaps: Sequence[tuple[int, int]] = (),
) -> Iterator[Schedule]:
    """All shapes that are considered.

    Args:
        depth: layers of the decoder.
        entries: late entries.
        ranks: whether a stage 2 can choose what stays.
        freezes: whether frozen layers save anything under the measure of the average.
        late: whether the model reads its picture up to the last layers, so that none leaves it without one.
        gaps: runs of layers that tokens may be away from.
    """
    places = list(boundaries(depth))
    drops: list[tuple[tuple[int, ...], tuple[float, ...]]] = [((), ())]
    drops += [((layer,), (0.0,)) for layer in places]
    if ranks:
        drops += [((layer,), (ratio,)) for layer in places for ratio in (*FIRST, *SECOND[:-1])]
        pairs = [(one, two) for one in FIRST for two in SECOND if two < one]
        drops += [(layers, ratios) for layers in combinations(places, 2) for ratios in pairs]
        drops += [(layers, (*ratios, 0.0)) for layers in combinations(places, 3) for ratios in pairs if ratios[1]]
    if late:
        drops = [(layers, ratios) for layers, ratios in drops if not ratios or ratios[-1] > 0]
    for entry in (0, *entries):
        for layers, ratios in drops:
            if layers and (layers[0] <= entry or (entry and len(layers) > 2)):
                continue
            shape = Schedule(
                "calibrated", (1, 2), tuple(layer / depth for layer in layers), ratios=ratios, entry=entry / depth
            )
            yield shape
            for start, end in gaps if not entry else ():
                if not any(start <= layer < end for layer in layers) and (not ratios or ratios[-1] or layers[-1] > end):
                    yield replace(shape, away=((start / depth, end / depth),))
            if freezes:
                yield from (replace(shape, frozen=layer / depth) for layer in places if layer >= max(entry, 1))


def candidates(
    model: Model,
    average: float,
    backbone: Backbone,
    own: Schedule,
    method: str,
    entries: Sequence[int],
    measure: str = MEASURES[0],
    ranks_before: bool = False,
) -> list[Candidate]:
    """Every shape that reaches the average, least foretold loss first.

    Args:
        model: from the curves.
        average: visual tokens per layer.
        backbone: sizes, with a usual prompt.
        own: the method's schedule, for its stages and its share of merged tokens.
        method: its name.
        entries: late entries.
        measure: what the average counts.
        ranks_before: whether stage 2 ranks in the layer before a drop, so that none can be where tokens come back.

    Raises:
        UserError: no shape reaches it.
    """
    depth, found, reason = backbone.decoder.layers, [], ""
    every = shapes(depth, entries, 2 in own.stages, measure != MEASURES[0], backbone.reads_late, model.gaps())
    for shape in every:
        if ranks_before and {layer for _, layer in shape.away} & {*shape.layers}:
            continue
        try:
            budget = Budget.solve(average, backbone, schedule=fit_shape(own, shape, backbone, method), measure=measure)
            layers = budget.tokens_per_layer(backbone)
        except UserError as error:
            reason = str(error)
            continue
        if backbone.reads_late and not layers[-1]:
            continue  # a small share of few tokens
        reached = abs(budget.average(backbone, measure) - average) <= max(0.5, 0.02 * average)
        counts = budget.counts(backbone) or (0, 0)
        if reached and sum(counts) <= backbone.known_patches:  # a tower's CLS token may have no place of its own
            found.append(Candidate(shape, budget, model.loss(budget, layers), layers))
    if not found:
        raise UserError(f"no shape has an average of {average:g} tokens with method {method}: {reason}")
    return sorted(found, key=lambda one: (one.foretold, -len([count for count in one.layers if count])))


def distinct(ranked: Sequence[Candidate], count: int) -> list[Candidate]:
    """The first `count` that differ from each other in more than a few tokens."""
    chosen: list[Candidate] = []
    for one in ranked:
        if len(chosen) < count and all(_apart(one, other) > SAME for other in chosen):
            chosen.append(one)
    return chosen


def _apart(one: Candidate, other: Candidate) -> float:
    if (one.budget.frozen is None) != (other.budget.frozen is None):
        return 1.0
    moved = sum(abs(a - b) for a, b in zip(one.layers, other.layers, strict=True))
    return moved / max(1, sum(one.layers) + sum(other.layers))
