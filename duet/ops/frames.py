"""What the methods that choose over all frames of a clip share: shapes, and how a total is spread over groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from duet.edit import NONE, Edit
from duet.ops.similarity import exact

if TYPE_CHECKING:
    from duet.types import VisionStates


def clips(x: Tensor, dims: int) -> Tensor:
    """`x` with a batch dimension in front, and at least in float32.

    Args:
        x: `[B, F, ...]` or, for one clip, `[F, ...]`.
        dims: dimensions of a batch.
    """
    return exact(x if x.dim() == dims else x[None])


def by_frame(x: Tensor, states: VisionStates) -> Tensor:
    """`[B, N, ...]` of media as `[B, F, N / F, ...]`: frames of a video; a picture, crops included, is one frame."""
    return x.unflatten(1, (len(states.unit_grids) if states.role == "video" else 1, -1))


def allot(thresholds: Tensor, keep: int) -> Tensor:
    """Spread `keep` tokens over groups whose counts are rounded shares of one rate.

    A group's n-th token is due when the rate reaches the n-th threshold. The rate at which `keep` are due is never
    looked for: those with the smallest thresholds are due there. Whatever rate a rule of this kind is run at, its
    counts are those that come out here for their sum. Ties go to the first.

    Args:
        thresholds: `[B, G, N]`, ascending in the last dimension; infinite where a group has fewer than N tokens.
        keep: total.

    Returns:
        `[B, G]` long.
    """
    batch, groups, size = thresholds.shape
    due = thresholds.flatten(1).sort(dim=-1, stable=True).indices[:, :keep] // size
    return torch.zeros(batch, groups, dtype=torch.long, device=due.device).scatter_add(1, due, torch.ones_like(due))


def numbers(mask: Tensor, count: int) -> Tensor:
    """Ascending columns `[B, count]` of the marked ones of `mask [B, T]`, which has `count` in every row."""
    return mask.sort(dim=-1, descending=True, stable=True).indices[:, :count]


def merged_edit(kept: Tensor, tokens: int, source: Tensor, target: Tensor, weight: Tensor, own: Tensor) -> Edit:
    """An edit of projected features in which any output may have tokens merged into it.

    Args:
        kept: `[B, K]` ascending.
        tokens: N, before.
        source, target, weight: `[B, M]`: token `source` flows into token `target`, one of `kept`; `NONE` at padding.
        own: `[B, N]` weight of each token itself.
    """
    slots = torch.arange(kept.shape[1], device=kept.device).expand_as(kept)
    slot = torch.zeros(len(kept), tokens, dtype=torch.long, device=kept.device).scatter(1, kept, slots)
    into = slot.gather(1, target.clamp_min(0)).masked_fill(target < 0, NONE)
    return Edit(kept, tokens, source, into, weight, own.gather(1, kept), kept.shape[1], projected=True)
