"""Control: patches at even distances, whatever the picture shows.

The grid is cut into K cells of nearly the same size (`duet.ops.grids.cut_into_cells`), and the patch in the middle of
each stays. `pool` averages the same cells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from duet.ops.grids import as_rows, middle_patches

if TYPE_CHECKING:
    from torch import Tensor


def select(*, keep: int, features: Tensor, grid: tuple[int, ...] | None = None) -> Tensor:
    """The middles of K cells.

    Args:
        keep: K.
        features: `[B, N, D]`, read for its shape.
        grid: `(h, w)` or `(t, h, w)`, whose frames are stacked; None for the most nearly square one.

    Returns:
        `[B, K]` long, ascending, the same in every row.
    """
    middles = middle_patches(as_rows(features.shape[1], grid), keep)
    return middles.to(features.device).repeat(len(features), 1)
