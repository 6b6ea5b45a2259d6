"""Control: evenly spaced patches, independent of the picture.

The grid is cut into K cells of nearly equal size (`duet.ops.grids.cut_into_cells`), and the middle patch of each is
kept. `pool` averages the same cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from duet.edit import Edit
from duet.ops.grids import as_rows, middle_patches
from duet.ops.reduce import allowance

if TYPE_CHECKING:
    from torch import Tensor

    from duet.budget import Stage1
    from duet.types import VisionStates


@torch.no_grad()
def select(*, keep: int, features: Tensor, grid: tuple[int, ...] | None = None) -> Tensor:
    """The middle patches of K cells.

    Args:
        keep: K.
        features: `[B, N, D]`, read for its shape.
        grid: `(h, w)` or `(t, h, w)`, frames stacked; None for the most nearly square one.

    Returns:
        `[B, K]` long, ascending, the same in every row.
    """
    middles = middle_patches(as_rows(features.shape[1], grid), keep)
    return middles.to(features.device).repeat(len(features), 1)


@dataclass(frozen=True)
class Uniform:
    """Stage 1 by `select`."""

    needs: ClassVar[frozenset[str]] = frozenset()
    contextual: ClassVar[bool] = False
    scope: ClassVar[str] = "unit"

    def __call__(self, states: VisionStates, budget: Stage1) -> Edit:
        """Keep as many patches as the budget has tokens."""
        kept = select(keep=allowance(states, budget), features=states.features, grid=states.grid)
        return Edit.keep(kept, states.features.shape[1])
