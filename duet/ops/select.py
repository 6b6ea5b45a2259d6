"""Choose tokens by score.

Ties go to the lower index, so a row's result depends neither on a library's sort nor on the rest of the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor


def ranked(scores: Tensor, k: int) -> Tensor:
    """Indices of the k largest scores in descending order, `[B, N] -> [B, k]`."""
    return scores.sort(dim=-1, descending=True, stable=True).indices[..., :k]


def top_and_rest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Split `[B, N]` into the k best `[B, k]` and the others `[B, N - k]`, both as ascending indices."""
    order = ranked(scores, scores.shape[-1])
    return order[..., :k].sort(dim=-1).values, order[..., k:].sort(dim=-1).values


def keep_best(scores: Tensor, candidates: Tensor, counts: Tensor) -> Tensor:
    """Mark the best candidates of each row.

    Args:
        scores: `[B, T]`; read at candidates only.
        candidates: `[B, T]` bool.
        counts: `[B]` long, how many to keep; a row with fewer candidates keeps all of them.

    Returns:
        `[B, T]` bool, a subset of `candidates`.
    """
    order = scores.masked_fill(~candidates, -torch.inf).sort(dim=-1, descending=True, stable=True).indices
    places = torch.arange(scores.shape[-1], device=scores.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(-1, order, places)
    return candidates & (rank < counts[:, None])
