"""Column sums of a softmax attention map as two Triton kernels: log-sum-exp of the rows, then the sums; no map."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _rows(q, k, lse, scale, tokens, width, BLOCK: tl.constexpr, WIDTH: tl.constexpr):  # type: ignore
    head, block = tl.program_id(0), tl.program_id(1)
    base = head.to(tl.int64) * tokens * width
    rows, dims = block * BLOCK + tl.arange(0, BLOCK), tl.arange(0, WIDTH)
    real = dims[None, :] < width
    mine = tl.load(q + base + rows[:, None] * width + dims[None, :], mask=(rows[:, None] < tokens) & real, other=0.0)
    top = tl.full([BLOCK], -1e30, tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, tokens, BLOCK):
        cols = start + tl.arange(0, BLOCK)
        other = tl.load(
            k + base + cols[:, None] * width + dims[None, :], mask=(cols[:, None] < tokens) & real, other=0.0
        )
        logits = tl.dot(mine, tl.trans(other), input_precision="ieee") * scale
        logits = tl.where(cols[None, :] < tokens, logits, -1e30)
        higher = tl.maximum(top, tl.max(logits, 1))
        total = total * tl.exp(top - higher) + tl.sum(tl.exp(logits - higher[:, None]), 1)
        top = higher
    tl.store(lse + head * tokens + rows, top + tl.log(total), mask=rows < tokens)


@triton.jit
def _columns(q, k, lse, out, scale, tokens, width, BLOCK: tl.constexpr, WIDTH: tl.constexpr):  # type: ignore
    head, block = tl.program_id(0), tl.program_id(1)
    base = head.to(tl.int64) * tokens * width
    cols, dims = block * BLOCK + tl.arange(0, BLOCK), tl.arange(0, WIDTH)
    real = dims[None, :] < width
    mine = tl.load(k + base + cols[:, None] * width + dims[None, :], mask=(cols[:, None] < tokens) & real, other=0.0)
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, tokens, BLOCK):
        rows = start + tl.arange(0, BLOCK)
        other = tl.load(
            q + base + rows[:, None] * width + dims[None, :], mask=(rows[:, None] < tokens) & real, other=0.0
        )
        whole = tl.load(lse + head * tokens + rows, mask=rows < tokens, other=float("inf"))
        total += tl.sum(tl.exp(tl.dot(other, tl.trans(mine), input_precision="ieee") * scale - whole[:, None]), 0)
    tl.store(out + head * tokens + cols, total, mask=cols < tokens)


def column_sums(q: Tensor, k: Tensor, scale: float, block: int = 64) -> Tensor:
    """`duet.ops.scores.received_attention` for float32, bfloat16 and float16: `[B, T]` float32.

    Args:
        q, k: `[B, H, T, d]`.
        scale: factor on the logits.
        block: rows and columns at a time.
    """
    batch, heads, tokens, width = q.shape
    q, k = q.contiguous(), k.contiguous()
    lse = torch.empty(batch * heads, tokens, dtype=torch.float32, device=q.device)
    out = torch.empty_like(lse)
    grid = (batch * heads, triton.cdiv(tokens, block))
    sizes = {"BLOCK": block, "WIDTH": max(16, triton.next_power_of_2(width))}
    _rows[grid](q, k, lse, scale, tokens, width, **sizes)
    _columns[grid](q, k, lse, out, scale, tokens, width, **sizes)
    return out.view(batch, heads, tokens).mean(1)
