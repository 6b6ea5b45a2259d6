"""Control: average pooling to any number of tokens.

The grid is cut into K cells of nearly equal size (`duet.ops.grids.cut_into_cells`). Every patch is in one cell, and
each cell becomes the mean of its features, before the projector. If K divides the grid this is plain average pooling.
A token takes the place of the middle patch of its cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from duet.ops.grids import as_rows, cell_of_patches, middle_patches
from duet.ops.groups import mean_of_groups, rest_of
from duet.ops.reduce import allowance

if TYPE_CHECKING:
    from torch import Tensor

    from duet.budget import Stage1
    from duet.edit import Edit
    from duet.types import VisionStates


@torch.no_grad()
def select(*, keep: int, features: Tensor, grid: tuple[int, ...] | None = None) -> Tensor:
    """The middle patches of K cells, which represent the means.

    Args:
        keep: K.
        features: `[B, N, D]`, read for its shape.
        grid: `(h, w)` or `(t, h, w)`, frames stacked; None for the most nearly square one.

    Returns:
        `[B, K]` long, ascending, the same in every row.
    """
    middles = middle_patches(as_rows(features.shape[1], grid), keep)
    return middles.to(features.device).repeat(len(features), 1)


def cells(tokens: int, keep: int, grid: tuple[int, ...] | None = None) -> Tensor:
    """The cell `0..K-1` of each patch, `[N]` long."""
    return cell_of_patches(as_rows(tokens, grid), keep)


@dataclass(frozen=True)
class Pool:
    """Stage 1: average pooling into as many cells as the budget has tokens."""

    needs: ClassVar[frozenset[str]] = frozenset()
    contextual: ClassVar[bool] = False
    scope: ClassVar[str] = "unit"

    def __call__(self, states: VisionStates, budget: Stage1) -> Edit:
        """Average the cells."""
        keep = allowance(states, budget)
        kept = select(keep=keep, features=states.features, grid=states.grid)
        others = rest_of(kept, states.features.shape[1])
        return mean_of_groups(kept, others, cells(states.features.shape[1], keep, states.grid).to(kept.device)[others])
