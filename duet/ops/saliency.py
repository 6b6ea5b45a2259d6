"""How much each token moves what some layers make of others: gradients of a look ahead."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from duet.ops.similarity import exact

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def gradient_norms(ahead: Callable[[Tensor], Tensor], hidden: Tensor, watched: Tensor) -> Tensor:
    """The norm of each token's gradient of how far `ahead` moves the watched ones.

    The loss of a row is half the squared distance between the watched tokens' states before and after, divided by a
    constant, their root mean square, so that gradients have the size of states in half precision, too. Records
    gradients wherever it is called, in `no_grad` and `inference_mode` as well; the caller's own graph is not touched.

    Args:
        ahead: `[B, T, D] -> [B, T, D]`, differentiable; rows do not mix.
        hidden: `[B, T, D]`.
        watched: `[B, T]` bool.

    Returns:
        `[B, T]` in float32 (float64 stays).
    """
    with torch.inference_mode(False), torch.enable_grad():
        start = hidden.detach().clone().requires_grad_()
        others = ~watched[..., None].clone()
        moved = (exact(ahead(start)).to(start.device) - exact(start.detach())).masked_fill(others, 0)
        count = (~others).sum((1, 2), keepdim=True).clamp_min(1) * moved.shape[2]
        size = (moved.detach().square().sum((1, 2), keepdim=True) / count).sqrt()
        pull = moved.detach() / size.clamp_min(torch.finfo(size.dtype).tiny)
        (gradient,) = torch.autograd.grad(moved, start, pull)
    return exact(gradient).norm(dim=-1)
