"""Density peaks (DPC-KNN): find the tokens of a set that are cluster centres."""

from __future__ import annotations

import torch
from torch import Tensor

from duet.ops.select import ranked

#: Noise that the released codes add to densities to break ties.
NOISE = 1e-6


def check_seed(seed: int | None) -> None:
    """Check that torch accepts a seed of the noise.

    Raises:
        ValueError: it does not.
    """
    if seed is not None and not 0 <= seed < 1 << 63:
        raise ValueError(f"noise_seed is {seed}; it is a whole number from 0 to {(1 << 63) - 1}")


def peaks(x: Tensor, valid: Tensor, nearest: Tensor, seed: int | None = None) -> tuple[Tensor, Tensor]:
    """Score each token as a cluster centre: its density times its distance to the nearest denser token.

    The density is exp(-mean squared distance to the nearest tokens, itself included); distances are divided by the
    square root of the width. Of two equally dense tokens, the first counts as denser. The released codes (FastVID,
    HoliTom, PruneVid) add noise of 1e-6 instead; pass `seed` for that.

    Args:
        x: `[R, N, D]`, a set of tokens in each row.
        valid: `[R, N]` bool, the tokens of the set.
        nearest: `[R]` long, the number of neighbours in a density.
        seed: seed of the noise, the same for all rows; None for no noise.

    Returns:
        scores `[R, N]`, -inf outside the set; distances `[R, N, N]`, infinite outside the set.
    """
    rows, size, width = x.shape
    # no matrix product: distances must be exactly symmetric, or rounding breaks the tie between two equally dense
    # tokens that are each other's nearest neighbour
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
