"""VScan (TMLR 2026): half the patches from windows of a shallow layer, half by a deep one; the others are merged.

Code: Tencent/SelfEvolvingAgent @ a82450e, `VScan/llava/model/llava_arch.py`. Released, stage 1: the same number of
patches from each of 4 x 4 windows by CLS attention of tower layer 5 (counted from 0), then the best of the others by
that of the second-to-last layer. Every other patch is merged into the most similar kept one in projected space, which
becomes the true mean of its group (VisionZip and DUET add the mean of the members to the anchor). Stage 2:
PyramidDrop's rule, the last prompt token, after half of the layers, 96 -> 32 for an average of 64. Renumbered.

Differences: the windows' share is rounded down to a multiple of 16 and the deep layer fills the rest; the released code
needs counts that are multiples of 32 and a grid of 24 x 24. Towers without CLS use received attention, as in the
released code for Qwen2.5-VL, which has windows of 4 x 4 tokens; here there are 4 x 4 windows on any grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from duet.ops.gather import take
from duet.ops.grids import as_rows
from duet.ops.groups import mean_of_groups, rest_of
from duet.ops.merge import nearest_anchor
from duet.ops.reduce import SCORES, allowance, check_score
from duet.ops.select import ranked
from duet.ops.similarity import exact

if TYPE_CHECKING:
    from torch import Tensor

    from duet.budget import Stage1
    from duet.edit import Edit
    from duet.types import VisionStates

#: Windows along each side.
WINDOWS = 4


@torch.no_grad()
def select(
    *, keep: int, cls_attention: Tensor, cls_attention_shallow: Tensor, grid: tuple[int, ...] | None = None
) -> Tensor:
    """Patches that stand out in their window, and in the picture.

    Args:
        keep: K.
        cls_attention: `[B, N]` of the second-to-last layer.
        cls_attention_shallow: `[B, N]` of layer 5.
        grid: `(h, w)` or `(t, h, w)`; None for the most nearly square one.

    Returns:
        `[B, K]` long, ascending.
    """
    tokens = cls_attention.shape[1]
    local = _best_of_windows(cls_attention_shallow, as_rows(tokens, grid), keep // 2 // WINDOWS**2)
    falling = ranked(cls_attention, tokens)
    return take(falling, ranked(take(local, falling).float(), keep)).sort(-1).values


@torch.no_grad()
def groups(projected: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Assign the other patches to kept ones.

    Args:
        projected: `[B, N, P]`.
        kept: `[B, K]` long, ascending.

    Returns:
        the other patches `[B, N - K]`, ascending, and for each the index in `kept` of the most similar one.
    """
    others = rest_of(kept, projected.shape[1])
    return others, nearest_anchor(exact(projected), kept, others)


def _best_of_windows(scores: Tensor, grid: tuple[int, int], each: int) -> Tensor:
    """Mark the best `each` of every window, `[B, N]` bool."""
    window = window_of_patches(grid).to(scores.device)
    falling = ranked(scores, scores.shape[1])
    # stable: keeps the order by score inside a window
    grouped = take(falling, window[falling].argsort(dim=-1, stable=True))
    sizes = (window == torch.arange(WINDOWS**2, device=window.device)[:, None]).sum(1)
    rank = torch.arange(len(window), device=window.device) - (sizes.cumsum(0) - sizes)[window[grouped]]
    return torch.zeros_like(scores, dtype=torch.bool).scatter(1, grouped, rank < each)


def window_of_patches(grid: tuple[int, int]) -> Tensor:
    """The window of each patch, `[h x w]` long; windows differ by at most one row and column."""
    height, width = grid
    rows = torch.arange(height) * WINDOWS // height
    columns = torch.arange(width) * WINDOWS // width
    return (rows[:, None] * WINDOWS + columns).flatten()


@dataclass(frozen=True)
class VScan:
    """Stage 1 by `select` and `groups`: every kept patch becomes the mean of its group, in projected space.

    Args:
        score: `cls_row`, or `column_mean` on towers without CLS.
    """

    score: str = "cls_row"

    contextual: ClassVar[bool] = False
    scope: ClassVar[str] = "unit"

    def __post_init__(self) -> None:
        check_score(self.score)

    @property
    def needs(self) -> frozenset[str]:
        """Score rows of two layers, and projected features."""
        return frozenset({SCORES[self.score], SCORES[self.score] + "_shallow", "projected"})

    def __call__(self, states: VisionStates, budget: Stage1) -> Edit:
        """Keep as many patches as the budget has tokens, and merge all others into them."""
        assert states.projected is not None
        kept = select(
            keep=allowance(states, budget),
            cls_attention=states.scores[SCORES[self.score]],
            cls_attention_shallow=states.scores[SCORES[self.score] + "_shallow"],
            grid=states.grid,
        )
        return mean_of_groups(kept, *groups(states.projected, kept), projected=True)
