"""Rows and column sums of an attention map, computed from q and k without building the whole map."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

KERNEL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def attention_probabilities(q: Tensor, k: Tensor, scale: float, visible: Tensor | None = None) -> Tensor:
    """Softmax rows in float32 (float64 stays); handles grouped-query heads.

    Args:
        q: `[B, H, C, d]`.
        k: `[B, Hkv, T, d]`, H a multiple of Hkv.
        scale: factor on the logits.
        visible: `[B, C, T]` bool, False where a query may not attend.

    Returns:
        `[B, H, C, T]`.
    """
    batch, heads, rows, width = q.shape
    # q is small and the map is large: scale q, and put the heads that share a key into one product
    groups = (q * scale).reshape(batch, k.shape[1], -1, width)
    logits = (groups @ k.transpose(-1, -2)).reshape(batch, heads, rows, k.shape[2])
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    if visible is not None:
        logits.masked_fill_(~visible[:, None], torch.finfo(logits.dtype).min)
    return logits.softmax(-1)


def mean_rows(q: Tensor, k: Tensor, scale: float, visible: Tensor | None = None, chunk: int | None = None) -> Tensor:
    """Rows of the attention map averaged over heads, `[B, C, T]`; never holds all of `[B, H, C, T]`.

    Args:
        q, k, scale, visible: see `attention_probabilities`.
        chunk: queries at a time; with the default d, a chunk's probabilities are as many as the entries of the
            layer's q, less than the layer itself holds.
    """
    return _over_heads(lambda rows: rows.mean(1), q, k, scale, visible, chunk)


def max_rows(q: Tensor, k: Tensor, scale: float, visible: Tensor | None = None, chunk: int | None = None) -> Tensor:
    """Like `mean_rows`, with the maximum over heads, `[B, C, T]`."""
    return _over_heads(lambda rows: rows.amax(1), q, k, scale, visible, chunk)


def _over_heads(
    join: Callable[[Tensor], Tensor], q: Tensor, k: Tensor, scale: float, visible: Tensor | None, chunk: int | None
) -> Tensor:
    size = chunk or q.shape[-1]
    seen = [None] * len(q.split(size, dim=2)) if visible is None else visible.split(size, dim=1)
    parts = zip(q.split(size, dim=2), seen, strict=True)
    return torch.cat([join(attention_probabilities(rows, k, scale, some)) for rows, some in parts], dim=1)


def received_attention(
    q: Tensor, k: Tensor, scale: float, chunk: int | None = None, lengths: Sequence[int] | None = None
) -> Tensor:
    """Attention that each token receives: sum over queries, mean over heads, `[B, T]`.

    Paper Algorithm 1 line 2. Works in chunks of queries: the map `[B, H, T, T]` of 16384 patches would take 16 GiB. On
    a GPU with Triton a kernel does it (`duet.ops.triton.column_sums`); `DUET_TRITON=0` turns it off.

    Args:
        q: `[B, H, T, d]`; k: `[B, H, T, d]`; scale: factor on the logits.
        chunk: queries at a time, see `mean_rows`.
        lengths: real tokens at the beginning of each row; padding after them neither gives nor receives. None: all.
    """
    kernels = _kernels(q, k) if chunk is None else None
    if kernels is not None:
        return kernels.column_sums(q, k, scale, lengths)
    batch, heads, tokens, width = q.shape
    received = q.new_zeros(batch, tokens, dtype=torch.float32 if q.dtype.itemsize < 4 else q.dtype)
    if lengths is not None and set(lengths) != {tokens}:
        for row, length in enumerate(lengths):
            mine, others = (one[row : row + 1, :, :length] for one in (q, k))
            received[row, :length] = received_attention(mine, others, scale, chunk or width)[0]
        return received
    for rows in q.split(chunk or width, dim=2):
        received += attention_probabilities(rows, k, scale).sum((1, 2))
    return received / heads


def received_by_segment(q: Tensor, k: Tensor, scale: float, lengths: Sequence[int]) -> Tensor:
    """`received_attention` of sequences that are packed one after another, each within itself: `[N]`.

    Args:
        q, k: `[N, H, d]`.
        scale: factor on the logits.
        lengths: of the sequences; their sum is N.
    """
    kernels = _kernels(q, k)
    if kernels is not None:
        return kernels.segment_sums(q, k, scale, lengths)
    parts = zip(q.split(list(lengths)), k.split(list(lengths)), strict=True)
    return torch.cat([received_attention(a.transpose(0, 1)[None], b.transpose(0, 1)[None], scale)[0] for a, b in parts])


def _kernels(q: Tensor, k: Tensor) -> Any:
    """The kernels for these tensors, None where they do not run."""
    if not q.is_cuda or q.dtype not in KERNEL_DTYPES or os.environ.get("DUET_TRITON") == "0":
        return None
    if find_spec("triton") is None or max(q.stride(-1), k.stride(-1)) > 1:
        return None
    from duet.ops.triton import column_sums

    return column_sums if q.shape[-1] <= column_sums.WIDEST else None


def mean_vote(rows: Tensor, real: Tensor) -> Tensor:
    """Mean over the real query rows.

    Args:
        rows: `[B, C, T]`.
        real: `[B, C]` bool, False at padding rows.

    Returns:
        `[B, T]`.
    """
    return (rows * real[..., None]).sum(1) / real.sum(1).clamp_min(1)[:, None]
