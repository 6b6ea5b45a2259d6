"""Control: average pooling to any number of tokens.

The grid is cut into K cells of nearly the same size (`duet.ops.grids.cut_into_cells`): bands of rows, each cut into as
many cells or one more. Every patch is in one cell, and each cell becomes the mean of its features, before the
projector. Where K divides the grid this is plain average pooling. The token stands where the middle patch of its cell
was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from duet.ops.grids import as_rows, cell_of_patches, middle_patches

if TYPE_CHECKING:
    from torch import Tensor


def select(*, keep: int, features: Tensor, grid: tuple[int, ...] | None = None) -> Tensor:
    """The patches in the middle of K cells, which stand for the means.

    Args:
        keep: K.
        features: `[B, N, D]`, read for its shape.
        grid: `(h, w)` or `(t, h, w)`, whose frames are stacked; None for the most nearly square one.

    Returns:
        `[B, K]` long, ascending, the same in every row.
    """
    middles = middle_patches(as_rows(features.shape[1], grid), keep)
    return middles.to(features.device).repeat(len(features), 1)


def cells(tokens: int, keep: int, grid: tuple[int, ...] | None = None) -> Tensor:
    """The cell `0..K-1` of each patch, `[N]` long."""
    return cell_of_patches(as_rows(tokens, grid), keep)
