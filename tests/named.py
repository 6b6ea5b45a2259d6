"""Named budgets for methods with these stages and the default shapes, on the model that they are made for."""

from __future__ import annotations

from duet.budget import Backbone, Budget, find_row, resolve_budget
from duet.budget.solver import default_schedule


def named(name: str, stages: tuple[int, ...] = (1, 2), backbone: str | Backbone | None = None) -> Budget:
    """The published setting, or one solved for the same average."""
    return resolve_budget(name, default_schedule(tuple(stages)), backbone or find_row(name).backbone)
