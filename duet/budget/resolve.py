"""Turn a budget, given as a name, an average or a `Budget`, into counts for a method and a model.

`duet.attach`, `duet.load`, all commands, grids, recipes, tables and the server use this. A named budget made for
another backbone is solved for this one, with a warning.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from duet.budget.backbones import find_backbone
from duet.budget.counts import RATIO_BASES, Budget
from duet.budget.names import find_row, find_shape
from duet.budget.shapes import fit_shape
from duet.budget.solver import solve
from duet.errors import UserError

if TYPE_CHECKING:
    from duet.budget.backbones import Backbone
    from duet.budget.names import Row
    from duet.budget.schedules import Schedule

log = logging.getLogger("duet.budget")


def resolve_budget(
    given: Budget | str | float | None,
    schedule: Schedule | None,
    backbone: Backbone | str,
    *,
    method: str = "this method",
    ratio_base: str | None = None,
    shape: str | None = None,
) -> Budget:
    """The counts of a method on a model.

    Args:
        given: a `Budget`; the name of one (`duet.budgets()`); or the wanted average of visual tokens per layer.
        schedule: the method's schedule; None for a method that keeps all tokens.
        backbone: sizes of the model, with the pictures of its prompt if counts must be solved for.
        method: the method's name, for messages.
        ratio_base: replaces the budget's own, see `Budget.drops`.
        shape: in place of the method's own schedule when an average is solved for, see `duet.budget.shapes`.

    Raises:
        UserError: nothing given, an unknown name, an unreachable average, counts for a stage that the method does not
            have, or no counts for a stage that it has.
    """
    model = find_backbone(backbone)
    if isinstance(given, str):
        find_row(given)  # an unknown name is an error for every method
    if shape is not None:
        if isinstance(given, (str, Budget)) or given is None or schedule is None:
            raise UserError(f"shape {shape!r} goes with an average, which it is solved for; {given!r} has its own")
        schedule = fit_shape(schedule, find_shape(shape), model, method)
    if schedule is None:
        if isinstance(given, Budget):
            _check_stages(given, (), method)
            given.frozen_for(model.decoder.layers)
            given.layers_for(model.decoder.layers)
            return given
        return Budget()
    base = ratio_base if 2 in schedule.stages else None
    if isinstance(given, str):
        found = _named(find_row(given), schedule, model, base, method)
    elif isinstance(given, Budget):
        _check_stages(given, schedule.stages, method)
        found = given if base is None else replace(given, ratio_base=base)
    elif isinstance(given, (int, float)) and not isinstance(given, bool):
        found = solve(given, model, schedule, ratio_base=base or RATIO_BASES[0])
    elif given is None:
        raise UserError(f"method {method} needs a budget: a name of duet.budgets(), an average, or a duet.Budget")
    else:
        raise UserError(f"budget is {given!r}; give a name of duet.budgets(), an average, or a duet.Budget")
    found.layers_for(model.decoder.layers)
    found.frozen_for(model.decoder.layers)
    return found


def made_for(row: Row, backbone: Backbone) -> bool:
    """Whether a named budget was made for a model of this shape: same depth, same size of pictures."""
    own = find_backbone(row.backbone)
    same_pictures = own.patches == backbone.patches or (own.capped and backbone.capped and own.patches is None)
    kind = (own.decoder.layers, own.cls, own.capped, own.cls_enters)
    return same_pictures and kind == (backbone.decoder.layers, backbone.cls, backbone.capped, backbone.cls_enters)


def _named(row: Row, schedule: Schedule, backbone: Backbone, ratio_base: str | None, method: str) -> Budget:
    if row.shape is not None and not (row.settings and made_for(row, backbone) and schedule.settings in row.settings):
        shape = schedule
        if schedule.stages == (1,) and row.shape.ranks:
            log.warning(
                "budget %s: method %s has no stage 2 for its shape, so every layer sees as many", row.name, method
            )
        else:
            shape = fit_shape(schedule, row.shape, backbone, method)
        return solve(row.target, backbone, shape, ratio_base=ratio_base or RATIO_BASES[0], measure=row.measure)
    own = made_for(row, backbone)
    if own and schedule.settings in row.settings:
        published = row.settings[schedule.settings]
        return published if ratio_base is None else replace(published, ratio_base=ratio_base)
    # published numbers are for the prompt that the row was made for, so the target is solved for that prompt, too
    model = find_backbone(row.backbone) if own and not backbone.capped else backbone
    try:
        found = solve(row.target, model, schedule, ratio_base=ratio_base or RATIO_BASES[0])
    except UserError as error:
        if own:
            raise
        raise UserError(f"budget {row.name} is made for {row.backbone}, not for this model: {error}") from error
    if not own:
        log.warning(
            "budget %s is made for %s; its average of %g visual tokens is solved for %s: %g",
            *(row.name, row.backbone, row.target, backbone.name, found.average(backbone)),
        )
    return found


def _check_stages(budget: Budget, stages: tuple[int, ...], method: str) -> None:
    if 1 in stages and budget.stage1 is None:
        raise UserError(
            f"method {method} has a stage 1, but the budget has no counts for it: give dominant, contextual"
        )
    if 2 in stages and not budget.layers and not budget.moves:
        raise UserError(f"method {method} has a stage 2, but the budget has no counts for it: give layers, ratios")
    if 1 not in stages and budget.stage1 is not None:
        raise UserError(f"method {method} has no stage 1; dominant, contextual would do nothing: use budget.only(2)")
    if 2 not in stages and budget.ranks:
        raise UserError(
            f"method {method} has no stage 2 to choose what stays after layers {budget.layers}: use budget.only(1), or "
            f"compose one (stage1:{method}+stage2:duet_prune)"
        )
