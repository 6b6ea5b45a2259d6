"""Density peaks (DPC-KNN): which tokens of a set are the centres of clusters."""

from __future__ import annotations

import torch
from torch import Tensor

from duet.ops.select import ranked

#: Noise that the released codes add to a density, so that no two are equal.
NOISE = 1e-6


def peaks(x: Tensor, valid: Tensor, nearest: Tensor, seed: int | None = None) -> tuple[Tensor, Tensor]:
    """How good a centre each token is: its density times its distance from the next denser token.

    The density is exp(-mean squared distance of the nearest tokens, itself among them); distances are divided by the
    root of the width. Of two equally dense tokens the first counts as the denser one; the released codes (FastVID,
    HoliTom, PruneVid) add noise of 1e-6 instead, which `seed` asks for.

    Args:
        x: `[R, N, D]`, a set of tokens in each row.
        valid: `[R, N]` bool, the tokens of the set.
        nearest: `[R]` long, how many neighbours make a density.
        seed: of the noise, the same for all rows; None for no noise.

    Returns:
        scores `[R, N]`, -inf outside of the set; distances `[R, N, N]`, infinite outside of the set.
    """
    rows, size, width = x.shape
    # not by a product of matrices: a has to be as far from b as b from a, or rounding decides which of two tokens that
    # are nearest to each other, and equally dense, is the denser one
    distance = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist") / width**0.5
    outside = ~(valid[:, :, None] & valid[:, None])
    near = distance.square().masked_fill(outside, torch.inf).sort(dim=-1).values
    count = torch.minimum(nearest, valid.sum(-1)).clamp_min(1)[:, None, None]
    used = torch.arange(size, device=x.device) < count
    density = (-(near.masked_fill(~used, 0).sum(-1) / count[..., 0])).exp()
    if seed is not None:
        noise = torch.rand(size, generator=torch.Generator().manual_seed(seed), dtype=density.dtype)
        density = density + NOISE * noise.to(density.device)
    order = ranked(density.masked_fill(~valid, -torch.inf), size)
    rank = torch.empty_like(order).scatter_(-1, order, torch.arange(size, device=x.device).expand(rows, -1))
    farthest = distance.masked_fill(outside, 0).flatten(1).amax(-1)[:, None, None]
    denser = (rank[:, None] < rank[:, :, None]) & ~outside
    parent = torch.where(denser, distance, farthest).amin(-1)
    return (parent * density).masked_fill(~valid, -torch.inf), distance.masked_fill(outside, torch.inf)
