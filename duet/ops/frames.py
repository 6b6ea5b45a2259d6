"""What the methods that choose over all frames of a clip share: shapes, and how a total is spread over groups."""

from __future__ import annotations

import torch
from torch import Tensor


def clips(x: Tensor, dims: int) -> Tensor:
    """`x` with a batch dimension in front, and at least in float32.

    Args:
        x: `[B, F, ...]` or, for one clip, `[F, ...]`.
        dims: dimensions of a batch.
    """
    return (x if x.dim() == dims else x[None]).to(torch.promote_types(x.dtype, torch.float32))


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
