"""Move tokens: gather by index, and close the gaps in a padded batch."""

from __future__ import annotations

import torch
from torch import Tensor


def take(x: Tensor, index: Tensor) -> Tensor:
    """`x [B, N, ...]`, `index [B, K]` -> `[B, K, ...]`; differentiable in x."""
    shape = index.shape + (1,) * (x.dim() - 2)
    return x.gather(1, index.view(shape).expand(*index.shape, *x.shape[2:]))


def close_gaps(keep: Tensor, length: int, left: bool) -> tuple[Tensor, Tensor]:
    """Source columns of the kept tokens when each row is shortened to `length` columns.

    Args:
        keep: `[B, T]` bool, at most `length` per row.
        length: number of columns of the shortened batch.
        left: put padding on the left side.

    Returns:
        `[B, length]` source columns, ascending over the kept tokens, and `[B, length]` bool, False at padding.
    """
    order = keep.sort(dim=-1, descending=not left, stable=True).indices
    columns = torch.arange(length, device=keep.device)
    kept = keep.sum(-1, keepdim=True)
    if left:
        return order[:, keep.shape[1] - length :], columns >= length - kept
    return order[:, :length], columns < kept


def compact_positions(valid: Tensor) -> Tensor:
    """0, 1, 2, ... over the valid tokens of each row, `[B, T] bool -> [B, T] long`; padding gets 0."""
    return (valid.long().cumsum(-1) - 1).clamp_min(0)
