"""Shared by the methods that choose over all frames of a clip: shapes, and spreading a total over groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from duet.edit import NONE, Edit
from duet.ops.similarity import exact

if TYPE_CHECKING:
    from duet.types import VisionStates


def clips(x: Tensor, dims: int) -> Tensor:
    """`x` with a leading batch dimension, in float32 or wider.

    Args:
        x: `[B, F, ...]` or, for one clip, `[F, ...]`.
        dims: number of dimensions of a batch.
    """
    return exact(x if x.dim() == dims else x[None])


def by_frame(x: Tensor, states: VisionStates) -> Tensor:
    """Split `[B, N, ...]` into frames, `[B, F, N / F, ...]`; a picture, crops included, is one frame."""
    return x.unflatten(1, (len(states.unit_grids) if states.role == "video" else 1, -1))


def allot(thresholds: Tensor, keep: int) -> Tensor:
    """Spread `keep` tokens over groups whose counts are rounded shares of one rate.

    A group gets its n-th token when the rate reaches its n-th threshold. There is no search for the rate that gives
    `keep` tokens: the `keep` smallest thresholds win. A rule of this kind, run at any rate, gives the same counts as
    this function does for their sum. Ties go to the first.

    Args:
        thresholds: `[B, G, N]`, ascending in the last dimension; infinite where a group has fewer than N tokens.
        keep: number of tokens in total.

    Returns:
        `[B, G]` long.
    """
    batch, groups, size = thresholds.shape
    due = thresholds.flatten(1).sort(dim=-1, stable=True).indices[:, :keep] // size
    return torch.zeros(batch, groups, dtype=torch.long, device=due.device).scatter_add(1, due, torch.ones_like(due))


def numbers(mask: Tensor, count: int) -> Tensor:
    """Ascending columns `[B, count]` of the True entries of `mask [B, T]`, which has `count` of them in every row."""
    return mask.sort(dim=-1, descending=True, stable=True).indices[:, :count]


def merged_edit(kept: Tensor, tokens: int, source: Tensor, target: Tensor, weight: Tensor, own: Tensor) -> Edit:
    """An edit of projected features that may merge tokens into any output.

    Args:
        kept: `[B, K]` ascending.
        tokens: N, the number before the edit.
        source, target, weight: `[B, M]`: token `source` is added to token `target`, one of `kept`; `NONE` at padding.
        own: `[B, N]`, each token's own weight.
    """
    slots = torch.arange(kept.shape[1], device=kept.device).expand_as(kept)
    slot = torch.zeros(len(kept), tokens, dtype=torch.long, device=kept.device).scatter(1, kept, slots)
    into = slot.gather(1, target.clamp_min(0)).masked_fill(target < 0, NONE)
    return Edit(kept, tokens, source, into, weight, own.gather(1, kept), kept.shape[1], projected=True)
