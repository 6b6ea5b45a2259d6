"""LLaVA-PruMerge+ (ICCV 2025): PruMerge, with a grid of patches in addition to those that CLS attends to.

42Shawn/LLaVA-PruMerge @ 097c041, `clip_encoder.py`; attention, neighbours and extra token as in `prumerge.py`. The
released code has two versions. One counts outliers, like PruMerge, and adds about every third of the other patches
(`adaptive_select`). The other, for fine-tuning, keeps N / 8 patches by attention and N / 8 on a grid, with duplicates;
its table of others then misses as many patches.

With a budget of K tokens, half of the K - 1 patches are chosen by attention and half from a grid
(`N * (2 i + 1) / 2 G`, the released one if both are N / 8). A grid patch that is already chosen is replaced by the next
patch by attention, so there are always K different tokens; `duplicates` keeps the released lists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from duet.baselines.prumerge import ATTENTION, NEEDS, adaptive_count, merging
from duet.ops.reduce import allowance
from duet.ops.select import keep_best, ranked
from duet.ops.similarity import exact

if TYPE_CHECKING:
    from torch import Tensor

    from duet.budget import Stage1
    from duet.edit import Edit
    from duet.types import VisionStates


def select(*, keep: int, cls_attention: Tensor, duplicates: bool = False) -> Tensor:
    """The patches that CLS attends to, and an even grid of others.

    Args:
        keep: number of patches to keep, without the extra token; the grid gets the smaller half.
        cls_attention: `[B, N]` CLS row of the tower's last layer, heads not split, without CLS.
        duplicates: keep a patch twice if it is on the grid and chosen by attention.

    Returns:
        `[B, keep]` ascending.
    """
    return ordered(keep=keep, cls_attention=cls_attention, duplicates=duplicates).sort(dim=-1).values


def ordered(*, keep: int, cls_attention: Tensor, duplicates: bool = False) -> Tensor:
    """`select` in the released order: by attention, then along the grid; `[B, keep]`."""
    batch, tokens = cls_attention.shape
    attention = exact(cls_attention)
    grid = keep // 2
    points = (2 * torch.arange(grid, device=attention.device) + 1) * tokens // (2 * max(grid, 1))
    if duplicates:
        return torch.cat([ranked(attention, keep - grid), points.expand(batch, -1)], 1)
    everyone = torch.arange(tokens, device=attention.device).expand(batch, -1)
    on_grid = torch.zeros(tokens, dtype=torch.bool, device=attention.device).index_fill(0, points, True)
    best = keep_best(
        attention, torch.ones_like(attention, dtype=torch.bool), torch.full_like(everyone[:, 0], keep - grid)
    )
    missing = keep - (best | on_grid).sum(-1)
    best = best | keep_best(attention, ~(best | on_grid), missing)
    place = torch.empty_like(everyone).scatter(1, ranked(attention, tokens), everyone)
    place = torch.where(best, place, torch.where(on_grid, everyone + tokens, 2 * tokens))
    return place.sort(dim=-1, stable=True).indices[:, :keep]


def adaptive_select(cls_attention: Tensor) -> Tensor:
    """The patches that the released code keeps without a budget.

    Patches with outlying attention, a share r of all, and of the others every `int(int(1 / r) / 3)`-th from the first
    on; the last patch is never on that grid. The released code fails if a third or more are outliers, or none: here
    every patch is kept then, or the best one counts as the outlier.

    Args:
        cls_attention: `[B, N]`.

    Returns:
        `[B, N]` bool.
    """
    batch, tokens = cls_attention.shape
    count = adaptive_count(cls_attention).clamp_min(1)
    best = keep_best(exact(cls_attention), torch.ones_like(cls_attention, dtype=torch.bool), count)
    step = ((1 / (count.double() / tokens)).long() // 3).clamp_min(1)
    places = torch.arange(tokens, device=cls_attention.device).expand(batch, -1)
    return best | ((places % step[:, None] == 0) & (places < tokens - 1))


@dataclass(frozen=True)
class PruMergePlus:
    """Keep all but one of the budget's tokens by attention and on a grid, merge, and add the token of all others."""

    needs: ClassVar[frozenset[str]] = NEEDS
    scope: ClassVar[str] = "unit"
    contextual: ClassVar[bool] = False

    def __call__(self, states: VisionStates, budget: Stage1) -> Edit:
        """Reduce each unit; the grid comes after the patches ordered by attention, as released."""
        return merging(states, ordered(keep=allowance(states, budget) - 1, cls_attention=states.scores[ATTENTION]))
