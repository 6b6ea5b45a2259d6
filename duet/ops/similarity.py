"""Full-precision cosines for methods that compare tokens."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize


def exact(x: Tensor) -> Tensor:
    """Half precision to float32; float32 and float64 stay."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def cosines(a: Tensor, b: Tensor | None = None) -> Tensor:
    """Cosine of every token of `a` with every token of `b`.

    Args:
        a: `[B, N, D]`.
        b: `[B, M, D]`; None for `a` itself.

    Returns:
        `[B, N, M]` in float32 (float64 stays); 0 where a token is zero.
    """
    unit = normalize(exact(a), dim=-1)
    other = unit if b is None else normalize(exact(b), dim=-1)
    return unit @ other.transpose(1, 2)
