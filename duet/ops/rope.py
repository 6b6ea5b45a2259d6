"""Rotary position embedding of queries and keys."""

from __future__ import annotations

import torch
from torch import Tensor


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate `x [B, H, T, d]` by `cos, sin [B, T, d]` (halves layout, as in LLaMA and Qwen2)."""
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return x * cos[:, None] + turned * sin[:, None]
