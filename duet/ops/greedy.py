"""Greedy choice of a subset: one loop over the picks, and what it may maximise.

The loop runs over picks only: rows of the batch go together, nothing is read back to the host, and what a pick changes
is updated in place, so no pick makes a tensor of N x N. Orders are prefixes of each other: the first k picks do not
depend on how many follow. Ties go to the first candidate.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import normalize

from duet.ops.similarity import exact


class Objective(Protocol):
    """What a greedy choice maximises; it remembers what was picked."""

    def scores(self, free: Tensor) -> Tensor:
        """What each candidate would add, `[B, N]`; `free [B, N]` bool are the candidates that are left."""

    def add(self, pick: Tensor) -> None:
        """Take the candidate `pick [B]` of each row into the set."""


def greedy(objective: Objective, count: int, candidates: Tensor) -> Tensor:
    """Pick `count` tokens of each row, one after the other, each time the one with the best score.

    Args:
        objective: see above; its state is used up.
        count: number of picks, at most N.
        candidates: `[B, N]` bool. A row with fewer than `count` gets token 0 in the places beyond.

    Returns:
        `[B, count]` long, in the order of picking.
    """
    free, order = candidates.clone(), []
    for _ in range(count):
        pick = objective.scores(free).masked_fill(~free, -torch.inf).argmax(-1)
        objective.add(pick)
        free.scatter_(1, pick[:, None], False)
        order.append(pick)
    return torch.stack(order, 1) if order else candidates.new_zeros(len(candidates), 0, dtype=torch.long)


def everyone(x: Tensor) -> Tensor:
    """All tokens of `x [B, N, ...]` as candidates, `[B, N]` bool."""
    return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)


def row_of(table: Tensor, pick: Tensor) -> Tensor:
    """`table [B, N, M]`, `pick [B]` -> `[B, M]`."""
    return table.gather(1, pick[:, None, None].expand(-1, 1, table.shape[2])).squeeze(1)


class Coverage:
    """Facility location: what is covered is covered as well as the best pick covers it.

    The score of a candidate is the sum over all rows of what it covers better than all picks so far. Only the residual
    `max(0, cover - best so far)` is kept; a pick takes its own residual off every other one.

    Args:
        cover: `[B, N, R]`, how well candidate n covers r; **overwritten**. Values below 0 never count.
        weight: `[B, N]`, factor on the candidates' scores; None for 1.
    """

    def __init__(self, cover: Tensor, weight: Tensor | None = None):
        self.residual = cover.clamp_(min=0)
        self.weight = weight

    def scores(self, free: Tensor) -> Tensor:
        """Weighted gain in coverage."""
        gain = self.residual.sum(-1)
        return gain if self.weight is None else gain * self.weight

    def add(self, pick: Tensor) -> None:
        """Cover what the pick covers."""
        covered = row_of(self.residual, pick)
        self.residual.sub_(covered[:, None]).clamp_(min=0)


class Spread:
    """Farthest point by cosine: the candidate that is least like its most similar pick.

    The first pick is the token that is least like its nearest neighbour. Cosines are made where they are read, so that
    all frames of a long video can be one row: never N x N of them at a time.

    Args:
        features: `[B, N, D]`; a token of zeros is like no other.
    """

    def __init__(self, features: Tensor):
        self.unit = normalize(exact(features), dim=-1)
        self.nearest: Tensor | None = None

    def scores(self, free: Tensor) -> Tensor:
        """1 - cosine to the nearest pick."""
        if self.nearest is None:
            return 1 - self._nearest_neighbours()
        return 1 - self.nearest

    def add(self, pick: Tensor) -> None:
        """Compare the others with the pick, too."""
        like = (self.unit @ row_of(self.unit, pick)[..., None]).squeeze(-1)
        self.nearest = like if self.nearest is None else torch.maximum(self.nearest, like)

    def _nearest_neighbours(self) -> Tensor:
        """Cosine of each token to the other one that it is most like, `[B, N]`; D rows at a time."""
        _, count, width = self.unit.shape
        number = torch.arange(count, device=self.unit.device)
        found = []
        for rows, mine in zip(self.unit.split(width, 1), number.split(width), strict=True):
            like = rows @ self.unit.transpose(1, 2)
            found.append(like.masked_fill_(mine[:, None] == number, -torch.inf).amax(-1))
        return torch.cat(found, 1)


class Volume:
    """Greedy MAP of a determinantal point process, by incremental Cholesky (Chen et al., NeurIPS 2018).

    The score is what a candidate adds to the volume that the picks span: the part of it that they do not explain. Once
    that is rounding for all, at the rank of the kernel, the candidates with the largest entry on the diagonal follow.

    Args:
        kernel: `[B, N, N]`, symmetric, positive semidefinite.
        count: how many picks at most.
    """

    def __init__(self, kernel: Tensor, count: int):
        self.kernel = kernel
        self.diagonal = kernel.diagonal(dim1=1, dim2=2)
        self.left = self.diagonal.clone()
        # what is below is rounding of the sums over the picks, and no volume
        self.floor = self.diagonal * (32 * torch.finfo(kernel.dtype).eps)
        self.factors = kernel.new_zeros(len(kernel), count, kernel.shape[1])
        self.picked = 0

    def scores(self, free: Tensor) -> Tensor:
        """What is left of each candidate; below all of them, negative, the explained ones by their diagonal."""
        explained = -1 / (1 + self.diagonal.clamp_min(0))
        return torch.where(self.left > self.floor, self.left, explained)

    def add(self, pick: Tensor) -> None:
        """Project the pick out of all others; an explained pick changes nothing."""
        where = pick[:, None]
        done = self.factors[:, : self.picked]
        own = done.gather(2, where[:, None].expand(-1, self.picked, 1))
        left, floor = self.left.gather(1, where), self.floor.gather(1, where)
        alive = left > floor
        rest = row_of(self.kernel, pick) - (own.transpose(1, 2) @ done).squeeze(1)
        factor = torch.where(alive, rest / left.clamp_min(torch.finfo(left.dtype).tiny).sqrt(), 0)
        self.factors[:, self.picked] = factor
        self.left -= factor.square()
        self.picked += 1
