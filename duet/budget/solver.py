"""`Budget.solve`: find the counts for a wanted average.

The shape is a `Schedule` (`duet/budget/schedules.py`), by default the paper's for both stages, VisionZip's for stage 1
alone and PyramidDrop's for stage 2 alone. With stage 1 the solver finds the count per picture, otherwise the share that
each drop leaves.

It takes the closest average that whole tokens allow, the lower of two equally close ones. The error is at most half a
token per picture (stage 1) or the effect of a step of 0.0001 in x (stage 2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from duet.budget.backbones import Backbone
from duet.budget.cost import frozen_share
from duet.budget.counts import MEASURES, RATIO_BASES, Budget
from duet.budget.fields import check_share, listed
from duet.budget.schedules import DUET, FLAT, PYRAMID, Schedule
from duet.errors import UserError

#: Default schedules for methods with these stages.
DEFAULTS = {(1, 2): DUET, (1,): FLAT, (2,): PYRAMID}

#: x = step / STEPS.
STEPS = 10_000
#: (share of the picture's tokens kept by stage 1, share of contextual tokens among them) (paper Table 12, of 576).
DUET_SHARES = ((102 / 576, 30 / 102), (205 / 576, 35 / 205), (307 / 576, 7 / 307))
#: Contextual share for pictures of unknown size (paper Table 15).
DYNAMIC_SHARE = 153 / 1023
#: Stage 1 alone (VisionZip: 162 + 30, 108 + 20, 54 + 10).
VISIONZIP_SHARE = 30 / 192


def solve(
    average: float,
    backbone: Backbone,
    schedule: Schedule,
    *,
    contextual_share: float | None = None,
    cluster_width: int = 4,
    layers: Sequence[int | float] | None = None,
    ratios: Sequence[float] | None = None,
    ratio_base: str = RATIO_BASES[0],
    entry: int | float | None = None,
    frozen: int | float | Sequence[int] | None = None,
    away: Sequence[int] | None = None,
    measure: str = MEASURES[0],
) -> Budget:
    """Find the counts for a wanted average.

    Args:
        average: visual tokens entering a layer, averaged over the layers, all pictures of the prompt together.
        backbone: sizes.
        schedule: the shape of the budget.
        contextual_share: share of contextual tokens among those that stage 1 keeps; default from Table 12 (`DUET`:
            interpolated between its rows by the share of the picture that is kept, constant outside), VisionZip's
            (`FLAT`), or none.
        cluster_width: for stage 1.
        layers: for stage 2, instead of the schedule's. ratios: the same, only together with stage 1.
        ratio_base: for stage 2, see `Budget.drops`.
        entry, frozen, away: instead of the schedule's, see `Budget`.
        measure: what the average counts, see `Budget.average`.

    Raises:
        UserError: the average cannot be reached (the message gives the range), or an argument has no effect.
    """
    _check_arguments(average, schedule.stages, contextual_share, layers, ratios)
    depth = backbone.decoder.layers
    span: dict[str, Any] = {
        "entry": schedule.entry_at(depth) if entry is None else entry,
        "frozen": schedule.frozen_at(depth) if frozen is None else _as_field(frozen),
        "away": schedule.away_at(depth) if away is None else listed("away", away),
    }
    if schedule.stages == (2,):
        return _solve_ratios(average, backbone, schedule, layers, {"ratio_base": ratio_base, **span}, measure)
    places = (
        schedule.places(depth)
        if layers is None
        else Budget(layers=tuple(layers), ratios=(1.0,) * len(layers)).layers_for(depth)
    )
    left = schedule.ratios_for(backbone) if ratios is None else tuple(ratios)
    left = schedule.merged(left, depth) if layers is None and ratios is None else left
    shape = Budget(layers=places, ratios=left, ratio_base=ratio_base, **span)
    shape.layers_for(depth)
    shape.frozen_for(depth)

    def at(total: int) -> Budget:
        share = _share(total, backbone, schedule) if contextual_share is None else contextual_share
        contextual = min(int(total * share + 0.5), total - 1)
        return Budget(total - contextual, contextual, cluster_width, places, left, ratio_base, **span)

    # Some layer sees every token that enters, so at most average x layers tokens enter, or more if it counts them less.
    least = 1.0 if span["frozen"] is None or measure == MEASURES[0] else frozen_share(backbone.decoder)
    bound = math.ceil(average * depth / least) + 1
    most = bound if backbone.patches is None else backbone.patches + backbone.cls
    return _closest(average, backbone, schedule.stages, 1, most, at, measure)


def _solve_ratios(
    average: float,
    backbone: Backbone,
    schedule: Schedule,
    layers: Sequence[int | float] | None,
    others: dict[str, Any],
    measure: str,
) -> Budget:
    depth = backbone.decoder.layers
    if layers is not None:
        places = Budget(layers=tuple(layers), ratios=(1.0,) * len(layers)).layers_for(depth)
        shares, powers = tuple(place / depth for place in places), tuple(range(1, len(places) + 1))
        schedule = replace(schedule, layers=shares, powers=powers)
    places = schedule.places(depth)

    def at(step: int) -> Budget:
        return Budget(layers=places, ratios=schedule.ratios_at(step / STEPS, depth), **others)

    return _closest(average, backbone, (2,), 0, STEPS, at, measure)


def _closest(
    average: float,
    backbone: Backbone,
    stages: tuple[int, ...],
    low: int,
    high: int,
    at: Callable[[int], Budget],
    measure: str,
) -> Budget:
    """Bisection: the average of `at(n)` does not fall as n grows. Takes the lower of two equally close averages."""
    least, most = (at(end).average(backbone, measure) for end in (low, high))
    # Rounded to a token, the ends of the range are as good as reached.
    if not least - 0.5 <= average <= most + 0.5:
        wanted = "stages 1 and 2" if len(stages) == 2 else f"stage {stages[0]} alone"
        reason = _why_not_less(at(low), backbone) if average < least else _why_not_more(at(high), backbone)
        raise UserError(
            f"an average of {average:g} visual tokens cannot be reached on {backbone.name} with {wanted}: "
            f"from {least:g} to {most:g} is possible{reason}"
        )
    while high - low > 1:
        middle = (low + high) // 2
        if at(middle).average(backbone, measure) <= average:
            low = middle
        else:
            high = middle
    below, above = at(low), at(high)
    distance = [abs(budget.average(backbone, measure) - average) for budget in (below, above)]
    return below if distance[0] <= distance[1] else above


def _as_field(frozen: int | float | Sequence[int]) -> int | float | tuple[int, ...]:
    return frozen if isinstance(frozen, (int, float)) else tuple(frozen)


def _why_not_less(smallest: Budget, backbone: Backbone) -> str:
    if smallest.stage1 is not None:
        return ""
    first = smallest.layers[0]
    advice = f"; drop before layer {first} to get lower (`layers`)" if first > 1 else ""
    return f", because the first drop is after layer {first} of {backbone.decoder.layers}{advice}"


def _why_not_more(largest: Budget, backbone: Backbone) -> str:
    if largest.stage1 is None or not largest.layers:
        return ""
    places = zip(largest.layers, largest.ratios, strict=True)
    schedule = ", ".join(f"{ratio:g} after layer {layer}" for layer, ratio in places)
    return (
        f", even if stage 1 keeps all {backbone.full}, because the schedule of stage 2 is fixed "
        f"({schedule} of {backbone.decoder.layers}); take a method with one stage, or other `layers` and `ratios`"
    )


def _share(total: int, backbone: Backbone, schedule: Schedule) -> float:
    if schedule.settings == "stage1":
        return VISIONZIP_SHARE
    if schedule.settings != "both":
        return 0.0
    if backbone.patches is None:
        return DYNAMIC_SHARE
    kept = total / backbone.patches
    for (left, first), (right, second) in pairwise(DUET_SHARES):
        if left <= kept <= right:
            return first + (second - first) * (kept - left) / (right - left)
    return DUET_SHARES[0][1] if kept < DUET_SHARES[0][0] else DUET_SHARES[-1][1]


def _check_arguments(
    average: float,
    stages: tuple[int, ...],
    contextual_share: float | None,
    layers: Sequence[int | float] | None,
    ratios: Sequence[float] | None,
) -> None:
    number = isinstance(average, (int, float)) and not isinstance(average, bool)
    if not (number and math.isfinite(average) and average > 0):
        raise UserError(f"an average of {average!r} visual tokens is not a positive number")
    for name, given in (("layers", layers), ("ratios", ratios)):
        if given is not None:
            listed(name, given)
    if contextual_share is not None and stages == (2,):
        raise UserError("contextual_share does nothing without stage 1")
    if contextual_share is not None:
        check_share("contextual_share", contextual_share)
    if stages == (1,) and not (layers is None and ratios is None):
        raise UserError("layers and ratios do nothing without stage 2")
    if stages == (2,) and ratios is not None:
        raise UserError("with stage 2 alone the ratios are solved for; leave them out, or put them into a Budget")


def default_schedule(stages: tuple[int, ...]) -> Schedule:
    """The default schedule of a method with these stages.

    Raises:
        UserError: no such stages.
    """
    if stages not in DEFAULTS:
        raise UserError(f"stages {stages} do not exist; choose (1, 2), (1,) or (2,)")
    return DEFAULTS[stages]
