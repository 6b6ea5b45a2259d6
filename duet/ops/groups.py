"""Edits that turn every kept token into the plain mean of its group."""

from __future__ import annotations

import torch
from torch import Tensor

from duet.edit import Edit
from duet.ops.select import ranked


def rest_of(kept: Tensor, tokens: int) -> Tensor:
    """The tokens that are not in `kept [B, K]`, `[B, tokens - K]` ascending."""
    gone = torch.ones(len(kept), tokens, device=kept.device).scatter(1, kept, 0)
    return ranked(gone, tokens - kept.shape[1])


def mean_of_groups(
    kept: Tensor, others: Tensor, group: Tensor, dtype: torch.dtype = torch.float32, projected: bool = False
) -> Edit:
    """Turn every kept token into the mean of itself and the other tokens of its group.

    Args:
        kept: `[B, K]` long.
        others: `[B, M]`, tokens that are not kept.
        group: `[B, M]`, the position in `kept` that each of them belongs to.
        dtype: dtype of the weights.
        projected: the features are those after the projector.
    """
    ones = torch.ones_like(kept, dtype=dtype)
    share = 1 / ones.scatter_add(1, group, torch.ones_like(group, dtype=dtype))
    tokens = kept.shape[1] + others.shape[1]
    return Edit(kept, tokens, others, group, share.gather(1, group), share, kept.shape[1], projected=projected)
