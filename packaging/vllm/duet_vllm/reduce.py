"""Stage 1 on encoded pictures: what all three families share."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from duet.ops.media import reduce_units
from duet_vllm.plan import PROJECTED

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from duet.types import Reduction, Unit, VisionStates
    from duet_vllm.plan import Plan


def reduce(
    plan: Plan, states: list[VisionStates], units: list[list[Unit]], project: Callable[[Tensor], Tensor]
) -> list[Reduction]:
    """One reduction per group of units.

    Args:
        plan: of the model.
        states: groups of equally large units.
        units: the unit of each row of each group.
        project: `[B, N, D] -> [B, N, P]`, features in the language model's width.
    """
    if PROJECTED in plan.reducer.needs:
        states = [replace(group, projected=project(group.features)) for group in states]
    return reduce_units(plan.reducer, plan.stage1, states, units)


def check_count(plan: Plan, found: int, expected: int) -> None:
    """Hold a method to the count that the prompt was made for.

    Raises:
        RuntimeError: its count does not follow from the picture's size.
    """
    if found != expected:
        raise RuntimeError(
            f"method {plan.method} kept {found} tokens of a picture where its budget says {expected}: vLLM needs "
            "counts that follow from the picture's size; serve it with `duet serve`"
        )
