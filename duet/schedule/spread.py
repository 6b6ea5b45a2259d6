"""A budget per picture at an equal mean: simple pictures take fewer tokens, crowded ones more.

A reducer with the switch `enough` stops at a quality instead of a count (`duet/cover/cover.py`: the mean cosine of a
patch to its nearest pick). `find_enough` finds the value at which samples have a wanted average; no answers are needed,
and the language model does not run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch

from duet.budget import Backbone, Budget
from duet.budget.names import find_shape
from duet.budget.shapes import fit_shape
from duet.edit import NONE
from duet.engine.attachment import attached
from duet.errors import UserError
from duet.method_table import find_method
from duet.registry import attach
from duet.schedule import MOST
from duet.schedule.choose import typical
from duet.schedule.passes import Meter, force

if TYPE_CHECKING:
    from duet.budget import Schedule, Stage1
    from duet.edit import Edit
    from duet.interfaces import VisionReducer
    from duet.schedule.run import Prompt
    from duet.types import VisionStates

#: Steps of the bisection: the switch is found to about a millionth.
STEPS = 20
#: Of the switch, which has six digits.
LEAST = 1e-6


@dataclass(frozen=True)
class Spread:
    """What was found.

    Attributes:
        enough: value of the switch, to six digits.
        budget: counts of the richest pictures.
        averages: of each sample, visual tokens per layer, averaged over the layers.
        entered: of each sample, tokens that enter the language model.
        backbone: sizes, with a usual prompt.
    """

    enough: float
    budget: Budget
    averages: list[float]
    entered: list[int]
    backbone: Backbone

    @property
    def mean(self) -> float:
        """Of the averages."""
        return fmean(self.averages)


class _Watched:
    """A reducer that notes what it was called with."""

    def __init__(self, reducer: VisionReducer) -> None:
        self._reducer = reducer
        self.needs, self.scope = reducer.needs, reducer.scope
        self.contextual = getattr(reducer, "contextual", False)
        self.seen: list[tuple[VisionStates, Stage1]] = []

    def __call__(self, states: VisionStates, budget: Stage1) -> Edit:
        self.seen.append((states, budget))
        return self._reducer(states, budget)


@torch.inference_mode()
def find_enough(
    model: Any,
    prompts: Sequence[Prompt],
    average: float,
    *,
    method: str = "duet_cover",
    shape: str | None = None,
    most: float = MOST,
    told: Callable[[str], None] = lambda line: None,
    **options: Any,
) -> Spread:
    """Find the value of `enough` at which the samples have an average. The method stays attached, with it.

    Args:
        model: from `duet.load`, in eval mode.
        prompts: questions about pictures, as of `duet.schedule.run.read_prompts`; only the pictures count.
        average: wanted visual tokens per layer, mean over layers and samples.
        method: one whose stage 1 has the switch.
        shape: of the budget, see `duet.budget.shapes`; None for the method's own.
        most: a picture has at most this many times the average.
        told: gets lines of progress.
        options: of `duet.attach`.

    Raises:
        UserError: another method, `most` of 1 or less, or an average that the samples cannot have.
    """
    own = check_method(method, options, most)
    sizes = [prompt.visual for prompt in prompts]
    backbone = typical(Backbone.from_config(model.config), sizes, [prompt.pictures for prompt in prompts])
    schedule = own if shape is None else fit_shape(own, find_shape(shape), backbone, method)
    budget = Budget.solve(min(most * average, 0.99 * _largest(schedule, backbone)), backbone, schedule=schedule)
    attach(model, method, budget, **options)
    compression, depth = attached(model).compression, backbone.decoder.layers
    assert compression.reducer is not None
    calls = []
    for number, prompt in enumerate(prompts):
        watched: Any = _Watched(compression.reducer)
        none = torch.zeros(0, dtype=torch.long)
        force(model, replace(compression, reducer=watched), prompt.inputs, none, Meter(backbone.decoder))
        calls.append((watched.seen, prompt.pictures))
        told(f"pictures: {number + 1} of {len(prompts)}")

    def counts(enough: float) -> list[int]:
        reducer: Any = replace(compression.reducer, enough=enough)  # type: ignore[type-var]
        return [sum(int((reducer(*call).kept != NONE).sum()) for call in seen) for seen, _ in calls]

    def averages(entered: Sequence[int]) -> list[float]:
        pairs = zip(entered, calls, strict=True)
        return [fmean(budget.counts_per_layer(count, units, depth)) for count, (_, units) in pairs]

    low, high = 0.0, 1.0
    richest = fmean(averages(counts(high)))
    if richest < average:
        raise UserError(f"these pictures have at most {richest:g} visual tokens per layer, less than {average:g}")
    poorest = fmean(averages(counts(LEAST)))
    if poorest > average:
        raise UserError(f"these pictures have at least {poorest:g} visual tokens per layer, more than {average:g}")
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if fmean(averages(counts(middle))) < average else (low, middle)
    enough = min(
        (max(round(low, 6), LEAST), round(high, 6)), key=lambda one: abs(fmean(averages(counts(one))) - average)
    )
    entered = counts(enough)
    attach(model, method, budget, enough=enough, **options)
    return Spread(enough, budget, averages(entered), entered, backbone)


def check_method(method: str, options: Mapping[str, Any], most: float) -> Schedule:
    """The schedule of a method that can end a picture's tokens.

    Raises:
        UserError: another method, its switch given, or `most` of 1 or less.
    """
    found = find_method(method)
    if found.reducer is None or found.schedule is None or "enough" not in found.reducer.options():
        raise UserError(f"method {method} has no switch `enough`, which ends a picture's tokens; duet_cover has one")
    if "enough" in options or "enough" in found.reducer.arguments:
        raise UserError("enough is what is looked for: leave it out")
    if not most > 1:
        raise UserError(f"most is {most:g}; it must be above 1: a picture may have that many times the mean")
    return found.schedule


def _largest(schedule: Schedule, backbone: Backbone) -> float:
    """The average of a shape that all tokens enter."""
    depth = backbone.decoder.layers
    ratios = schedule.merged(schedule.ratios_for(backbone), depth)
    whole = Budget(
        backbone.known_patches, 0, 4, schedule.places(depth), ratios,
        entry=schedule.entry_at(depth), frozen=schedule.frozen_at(depth), away=schedule.away_at(depth),
    )  # fmt: skip
    return whole.average(backbone)
