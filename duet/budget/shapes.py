"""Shapes: schedules by name or from a file, fitted to any method. `duet schedule` writes such files.

    resolve_budget(64, method.schedule, backbone, shape="duet_safe")

A shape says where tokens enter, are dropped, freeze and are away, and in which proportions; the solver finds the
counts for an average. A method with both stages takes it as it is. A method without stage 2 takes shapes that
choose nothing inside the language model. For a method without stage 1, the first drop comes one layer after the entry,
or where tokens are next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from duet.budget.counts import Budget
from duet.budget.fields import spans_of
from duet.budget.schedules import DUET, FLAT, SAFE, TOPS, VSCAN, Schedule
from duet.errors import UserError, suggest

if TYPE_CHECKING:
    from duet.budget.backbones import Backbone

#: By name.
SHAPES: dict[str, Schedule] = {shape.name: shape for shape in (DUET, SAFE, FLAT, VSCAN, TOPS)}
#: Keys of a shape in a file.
FIELDS = ("entry", "layers", "ratios", "frozen", "away")


def shape_of(budget: Budget, backbone: Backbone, name: str) -> Schedule:
    """The shape of a budget on a model."""
    depth, entered = backbone.decoder.layers, budget.entered(backbone)
    ratios = budget.ratios or tuple(min(1.0, count * backbone.pictures / entered) for count in budget.keep)
    frozen: float | tuple[float, ...] | None = None
    if isinstance(budget.frozen, tuple):
        frozen = tuple(layer / depth for layer in budget.frozen)
    elif budget.frozen is not None:
        frozen = budget.frozen_for(depth)[0] / depth
    return Schedule(
        name,
        (1, 2),
        tuple(layer / depth for layer in budget.layers_for(depth)),
        ratios=ratios,
        entry=budget.entry_for(depth) / depth,
        frozen=frozen,
        away=tuple((start / depth, end / depth) for start, end in spans_of(budget.away_for(depth))),
    )


def read_shape(values: Any, name: str) -> Schedule:
    """A shape from a file: `{entry, layers, ratios, frozen, away}`, all layers as shares of the depth.

    Raises:
        UserError: an unknown key, or values that are no shape.
    """
    if isinstance(values, str):
        if values not in SHAPES:
            raise UserError(f"unknown shape {values!r}; {suggest(values, SHAPES)}")
        return SHAPES[values]
    if not isinstance(values, Mapping):
        raise UserError(f"shape is {values!r}; give {{{', '.join(FIELDS)}}}, or one of {', '.join(SHAPES)}")
    for key in values:
        if key not in FIELDS:
            raise UserError(f"shape: unknown key {key!r}; {suggest(str(key), FIELDS)}")
    layers, ratios = (tuple(values.get(key) or ()) for key in ("layers", "ratios"))
    entry, frozen, away = values.get("entry", 0.0), values.get("frozen"), values.get("away") or ()
    Budget(layers=layers, ratios=ratios, entry=float(entry))
    given = frozen if isinstance(frozen, (list, tuple)) else [] if frozen is None else [frozen]
    spans = isinstance(away, (list, tuple)) and all(isinstance(span, (list, tuple)) and len(span) == 2 for span in away)
    if not spans or not all(isinstance(one, (int, float)) for span in away for one in span):
        raise UserError(f"shape: away is {away!r}; give a list of spans, each from one share to another: [[0.25, 0.5]]")
    bounds = [share for span in away for share in span]
    shares = [*layers, entry, *given, *bounds]
    if not all(isinstance(share, (int, float)) and 0 <= share < 1 for share in shares):
        raise UserError(f"shape {dict(values)}: give layers as shares of the depth, in [0, 1)")
    if any(later <= earlier for earlier, later in pairwise(bounds)):
        raise UserError(f"shape: away is {away!r}; the shares must ascend")
    still = tuple(frozen) if isinstance(frozen, (list, tuple)) else frozen
    gone = tuple((float(start), float(end)) for start, end in away)
    return Schedule(name, (1, 2), layers, ratios=ratios, entry=float(entry), frozen=still, away=gone)


def fit_shape(own: Schedule, shape: Schedule, backbone: Backbone, method: str) -> Schedule:
    """A shape for a method.

    Args:
        own: the method's own schedule.
        shape: the wanted one.
        backbone: sizes.
        method: its name, for messages.

    Raises:
        UserError: the shape needs a stage 2 that the method does not have.
    """
    if own.stages == (1, 2):
        if not shape.layers and not shape.moves:
            shape = replace(shape, layers=(0.5,), ratios=(1.0,))  # a stage 2 that keeps everything
        return replace(shape, stages=(1, 2), settings=own.settings)
    if own.stages == (1,):
        if shape.ranks:
            raise UserError(
                f"shape {shape.name} keeps a part of the tokens inside the language model, and method {method} has no "
                f"stage 2 to choose it: compose one (stage1:{method}+stage2:duet_prune), or take another shape"
            )
        return replace(shape, stages=(1,), settings=own.settings)
    depth = backbone.decoder.layers
    place = shape.entry_at(depth) + 1
    while place in shape.away_at(depth):
        place += 1
    first = place / depth
    later = [pair for pair in zip(shape.layers, shape.ratios_for(backbone), strict=True) if pair[0] > first]
    full = (1.0, *(ratio for _, ratio in later))
    layers = (first, *(layer for layer, _ in later))
    table = ((0.0,) * len(full), full)
    return replace(shape, stages=(2,), layers=layers, ratios=(), late_ratios=(), table=table, settings=None)
