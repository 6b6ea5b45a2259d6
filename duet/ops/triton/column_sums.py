"""Column sums of softmax attention maps as two Triton kernels: log-sum-exp of the rows, then the sums; no map.

Both work on segments of tokens that attend within themselves: the rows of a batch, or pictures of any sizes packed one
after another. A table says where each begins. Products accumulate in float32, whatever the inputs are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

#: Widest head: a block of wider ones in float32 does not fit into the shared memory of all devices.
WIDEST = 128
BLOCK = 64


@triton.jit
def _tile(base, first, length, stride, width, BLOCK: tl.constexpr, WIDTH: tl.constexpr):  # type: ignore
    """`[BLOCK, WIDTH]` of some tokens, zero beyond the segment and the head."""
    tokens, dims = first + tl.arange(0, BLOCK), tl.arange(0, WIDTH)
    inside = (tokens[:, None] < length) & (dims[None, :] < width)
    return tl.load(base + tokens[:, None].to(tl.int64) * stride + dims[None, :], mask=inside, other=0.0)


@triton.jit
def _rows(q, k, lse, table, scale, total, width, qh, qt, kh, kt, BLOCK: tl.constexpr, WIDTH: tl.constexpr):  # type: ignore
    head, block, segment = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    length = tl.load(table + 4 * segment + 3)
    if block * BLOCK < length:
        q += tl.load(table + 4 * segment) + head.to(tl.int64) * qh
        k += tl.load(table + 4 * segment + 1) + head.to(tl.int64) * kh
        lse += tl.load(table + 4 * segment + 2) + head.to(tl.int64) * total
        mine = _tile(q, block * BLOCK, length, qt, width, BLOCK, WIDTH)
        top = tl.full([BLOCK], -1e30, tl.float32)
        sums = tl.zeros([BLOCK], tl.float32)
        for start in range(0, length, BLOCK):
            other = _tile(k, start, length, kt, width, BLOCK, WIDTH)
            logits = tl.dot(mine, tl.trans(other), input_precision="ieee") * scale
            logits = tl.where((start + tl.arange(0, BLOCK))[None, :] < length, logits, -1e30)
            higher = tl.maximum(top, tl.max(logits, 1))
            sums = sums * tl.exp(top - higher) + tl.sum(tl.exp(logits - higher[:, None]), 1)
            top = higher
        rows = block * BLOCK + tl.arange(0, BLOCK)
        tl.store(lse + rows, top + tl.log(sums), mask=rows < length)


@triton.jit
def _columns(q, k, lse, out, table, scale, total, width, qh, qt, kh, kt, BLOCK: tl.constexpr, WIDTH: tl.constexpr):  # type: ignore
    head, block, segment = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    length = tl.load(table + 4 * segment + 3)
    if block * BLOCK < length:
        place = tl.load(table + 4 * segment + 2) + head.to(tl.int64) * total
        q += tl.load(table + 4 * segment) + head.to(tl.int64) * qh
        k += tl.load(table + 4 * segment + 1) + head.to(tl.int64) * kh
        mine = _tile(k, block * BLOCK, length, kt, width, BLOCK, WIDTH)
        sums = tl.zeros([BLOCK], tl.float32)
        for start in range(0, length, BLOCK):
            rows = start + tl.arange(0, BLOCK)
            other = _tile(q, start, length, qt, width, BLOCK, WIDTH)
            whole = tl.load(lse + place + rows, mask=rows < length, other=float("inf"))
            sums += tl.sum(tl.exp(tl.dot(other, tl.trans(mine), input_precision="ieee") * scale - whole[:, None]), 0)
        columns = block * BLOCK + tl.arange(0, BLOCK)
        tl.store(out + place + columns, sums, mask=columns < length)


def column_sums(q: Tensor, k: Tensor, scale: float, lengths: Sequence[int] | None = None, block: int = BLOCK) -> Tensor:
    """`duet.ops.scores.received_attention`: `[B, T]` float32, zero at padding.

    Args:
        q, k: `[B, H, T, d]`, float32, bfloat16 or float16, in any layout with neighbouring values of a head.
        scale: factor on the logits.
        lengths: real tokens at the beginning of each row; None: all.
        block: rows and columns at a time.
    """
    batch, heads, tokens, _ = q.shape
    places = [(row * q.stride(0), row * k.stride(0), row * tokens) for row in range(batch)]
    table = [(*place, length) for place, length in zip(places, lengths or [tokens] * batch, strict=True)]
    strides = (q.stride(1), q.stride(2), k.stride(1), k.stride(2))
    return _run(q, k, scale, table, heads, batch * tokens, strides, block).view(batch, tokens)


def segment_sums(q: Tensor, k: Tensor, scale: float, lengths: Sequence[int], block: int = BLOCK) -> Tensor:
    """`duet.ops.scores.received_by_segment`: `[N]` float32.

    Args:
        q, k: `[N, H, d]`, the segments one after another.
        scale, block: see `column_sums`.
        lengths: of the segments; their sum is N.
    """
    starts = [sum(lengths[:number]) for number in range(len(lengths))]
    table = [(s * q.stride(0), s * k.stride(0), s, length) for s, length in zip(starts, lengths, strict=True)]
    strides = (q.stride(1), q.stride(0), k.stride(1), k.stride(0))
    return _run(q, k, scale, table, q.shape[1], len(q), strides, block)


def _run(
    q: Tensor,
    k: Tensor,
    scale: float,
    table: list[tuple[int, int, int, int]],
    heads: int,
    total: int,
    strides: tuple[int, int, int, int],
    block: int,
) -> Tensor:
    """Both kernels; the mean over heads, `[total]`."""
    assert q.stride(-1) == k.stride(-1) == 1
    longest = max((length for *_, length in table), default=0)
    out = torch.zeros(heads, total, dtype=torch.float32, device=q.device)
    if longest == 0:
        return out.mean(0)
    lse = torch.empty_like(out)
    where = torch.tensor(table).to(q.device, non_blocking=True)
    width = q.shape[-1]
    grid = (heads, triton.cdiv(longest, block), len(table))
    sizes = {"BLOCK": block, "WIDTH": max(16, triton.next_power_of_2(width))}
    with torch.cuda.device_of(q):  # Triton launches on the current device
        _rows[grid](q, k, lse, where, scale, total, width, *strides, **sizes)
        _columns[grid](q, k, lse, out, where, scale, total, width, *strides, **sizes)
    return out.mean(0)
