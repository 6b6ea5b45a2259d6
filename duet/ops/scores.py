"""Rows and column sums of an attention map from q and k, without the whole map where it is not needed."""

from __future__ import annotations

import torch
from torch import Tensor


def attention_probabilities(q: Tensor, k: Tensor, scale: float, visible: Tensor | None = None) -> Tensor:
    """Softmax rows in float32 (float64 stays), grouped-query heads included.

    Args:
        q: `[B, H, C, d]`.
        k: `[B, Hkv, T, d]`, H a multiple of Hkv.
        scale: factor on the logits.
        visible: `[B, C, T]` bool, False where a query may not look.

    Returns:
        `[B, H, C, T]`.
    """
    batch, heads, rows, width = q.shape
    groups = q.reshape(batch, k.shape[1], -1, rows, width)
    # in place: a map is large
    logits = (groups @ k.transpose(-1, -2)[:, :, None]).reshape(batch, heads, rows, k.shape[2]).mul_(scale)
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    if visible is not None:
        logits.masked_fill_(~visible[:, None], torch.finfo(logits.dtype).min)
    return logits.softmax(-1)


def received_attention(q: Tensor, k: Tensor, scale: float, rows: int | None = None) -> Tensor:
    """Attention that each token receives: sum over queries, mean over heads, `[B, T]`.

    Paper Algorithm 1 line 2. Computed in chunks of queries, so that the map `[B, H, T, T]` never exists whole: 16384
    patches with 16 heads would take 16 GiB.

    Args:
        q: `[B, H, T, d]`; k: `[B, H, T, d]`; scale: factor on the logits.
        rows: queries at a time; the default 2 d makes the probabilities of a chunk twice as many as the entries of q,
            less than what the layer itself holds at a time.
    """
    batch, heads, tokens, width = q.shape
    received = q.new_zeros(batch, tokens, dtype=torch.float32 if q.dtype.itemsize < 4 else q.dtype)
    for chunk in q.split(rows or 2 * width, dim=2):
        received += attention_probabilities(chunk, k, scale).sum((1, 2))
    return received / heads


def mean_vote(probabilities: Tensor, real: Tensor) -> Tensor:
    """Mean over heads and over the real query rows.

    Args:
        probabilities: `[B, H, C, T]`.
        real: `[B, C]` bool, False at padding rows.

    Returns:
        `[B, T]`.
    """
    rows = probabilities.mean(1) * real[..., None]
    return rows.sum(1) / real.sum(1).clamp_min(1)[:, None]
