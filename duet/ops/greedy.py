"""Greedy subset selection: one loop over the picks, and the objectives that it can maximise.

The loop runs over picks only: all rows of the batch advance together, nothing is read back to the host, and state is
updated in place, so no pick allocates an N x N tensor. The first k picks do not depend on how many follow. Ties go to
the first candidate.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import normalize

from duet.ops.similarity import exact


class Objective(Protocol):
    """The quantity that a greedy choice maximises, with the picks so far as its state."""

    def scores(self, free: Tensor) -> Tensor:
        """The gain of each candidate, `[B, N]`; `free [B, N]` bool marks the candidates that are left."""

    def add(self, pick: Tensor) -> None:
        """Add the candidate `pick [B]` of each row to the set."""


#: Gains that differ by less, relatively, are equal but for rounding.
ROUNDING = 1e-5


def greedy(objective: Objective, count: int, candidates: Tensor, exact: bool = True) -> Tensor:
    """Pick `count` tokens in each row, one at a time, always the one with the best score.

    Args:
        objective: see above; its state is consumed.
        count: number of picks, at most N.
        candidates: `[B, N]` bool. A row with fewer than `count` candidates is filled up with token 0.
        exact: False to let the first win of several whose scores differ by rounding only, so that another batch size
            does not choose otherwise. Needed where scores tie by construction: of two tokens that cover each other and
            nothing else, each adds exactly as much.

    Returns:
        `[B, count]` long, in the order of picking.
    """
    free, order = candidates.clone(), []
    for _ in range(count):
        scores = objective.scores(free).masked_fill(~free, -torch.inf)
        if not exact:
            best = scores.amax(-1, keepdim=True)
            equal = scores >= best - ROUNDING * best.abs() - ROUNDING / 10
            scores = equal * torch.arange(free.shape[1], 0, -1, device=free.device)  # the first is the largest
        pick = scores.argmax(-1)
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
    """Facility location: each item is covered as well as its best pick covers it.

    A candidate's score is its gain in coverage over all picks so far, summed over the items. Only the residual
    `max(0, cover - best so far)` is kept; a pick's residual is subtracted from all the others.

    Args:
        cover: `[B, N, R]`, how well candidate n covers r; **overwritten**. Values below 0 never count.
        weight: `[B, N]`, factors on the candidates' scores; None for 1.
    """

    def __init__(self, cover: Tensor, weight: Tensor | None = None):
        self.residual = cover.clamp_(min=0)
        self.weight = weight

    def scores(self, free: Tensor) -> Tensor:
        """Weighted gain in coverage."""
        gain = self.residual.sum(-1)
        return gain if self.weight is None else gain * self.weight

    def add(self, pick: Tensor) -> None:
        """Subtract the pick's residual."""
        covered = row_of(self.residual, pick)
        self.residual.sub_(covered[:, None]).clamp_(min=0)


class Preservation:
    """Relevance, distance to the nearest pick and gain in coverage, each divided by its mean over the free candidates.

    TOPS' objective (arXiv 2606.27161). The first pick is the most relevant.

    Args:
        similarity: `[B, N, N]` cosines; **overwritten**.
        relevance: `[B, N]`, at least 0.
        candidates: `[B, N]` bool; the others need no covering.
        alpha: weight of diversity; lambda_: of coverage.
    """

    def __init__(self, similarity: Tensor, relevance: Tensor, candidates: Tensor, alpha: float, lambda_: float):
        self.similarity, self.relevance, self.candidates = similarity, relevance, candidates
        self.alpha, self.lambda_ = alpha, lambda_
        self.nearest: Tensor | None = None
        self.coverage: Coverage | None = None

    def scores(self, free: Tensor) -> Tensor:
        """Relevance alone at first, then all three terms."""
        if self.nearest is None or self.coverage is None:
            return self.relevance
        # a term that is only rounding error becomes 0: divided by its own mean it would count like any other
        rounding = 4 * torch.finfo(self.nearest.dtype).eps
        diversity, coverage = 1 - self.nearest, self.coverage.scores(free)
        diversity = diversity.masked_fill(diversity < rounding, 0)
        coverage = coverage.masked_fill(coverage < rounding * coverage.shape[1], 0)
        return (
            _by_mean(self.relevance, free)
            + self.alpha * _by_mean(diversity, free)
            + self.lambda_ * _by_mean(coverage, free)
        )

    def add(self, pick: Tensor) -> None:
        """Compare with the pick, and cover what it covers."""
        if self.nearest is None or self.coverage is None:
            self.nearest = row_of(self.similarity, pick)
            uncovered = self.similarity.sub_(self.nearest[:, None]).masked_fill_(~self.candidates[:, None], 0)
            self.coverage = Coverage(uncovered)
        else:
            self.nearest = self.nearest + row_of(self.coverage.residual, pick)
        self.coverage.add(pick)


def _by_mean(term: Tensor, free: Tensor) -> Tensor:
    """A term divided by its mean over the free candidates; 0 where that is 0."""
    mean = (term * free).sum(-1, keepdim=True) / free.sum(-1, keepdim=True).clamp_min(1)
    return torch.where(mean > 0, term / mean.clamp_min(torch.finfo(term.dtype).tiny), 0)


class Suppression:
    """Non-maximum suppression: the best by score, as long as none of the picks is too similar to it.

    Once all that are left are too similar to a pick, the best of them follow.

    Args:
        score: `[B, N]`.
        similarity: `[B, N, N]`.
        threshold: a candidate whose similarity to a pick is above waits.
    """

    def __init__(self, score: Tensor, similarity: Tensor, threshold: float):
        order = score.sort(dim=-1, descending=True, stable=True).indices
        self.rank = -order.argsort(-1).to(similarity.dtype)
        self.similarity, self.threshold = similarity, threshold
        self.waits = torch.zeros_like(score, dtype=torch.bool)

    def scores(self, free: Tensor) -> Tensor:
        """Place in the order of the scores; of those that wait, below all others."""
        return self.rank - self.waits * self.rank.shape[1]

    def add(self, pick: Tensor) -> None:
        """Let all that are too similar to the pick wait."""
        self.waits |= row_of(self.similarity, pick) > self.threshold


class Spread:
    """Farthest point by cosine: the candidate that is least similar to its nearest pick.

    The first pick is the token that is least similar to its nearest neighbour. Cosines are computed when they are
    needed, never N x N at a time, so all frames of a long video fit in one row.

    Args:
        features: `[B, N, D]`; a token of zeros has cosine 0 to all others.
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
        """Compare the other tokens with the pick."""
        like = (self.unit @ row_of(self.unit, pick)[..., None]).squeeze(-1)
        self.nearest = like if self.nearest is None else torch.maximum(self.nearest, like)

    def _nearest_neighbours(self) -> Tensor:
        """Cosine of each token to its nearest neighbour, `[B, N]`; D rows at a time."""
        _, count, width = self.unit.shape
        number = torch.arange(count, device=self.unit.device)
        found = []
        for rows, mine in zip(self.unit.split(width, 1), number.split(width), strict=True):
            like = rows @ self.unit.transpose(1, 2)
            found.append(like.masked_fill_(mine[:, None] == number, -torch.inf).amax(-1))
        return torch.cat(found, 1)


class Volume:
    """Greedy MAP of a determinantal point process, by incremental Cholesky (Chen et al., NeurIPS 2018).

    The score is what a candidate adds to the volume spanned by the picks: the part of it that they do not explain. Once
    only rounding errors are left, at the rank of the kernel, candidates follow by their diagonal entry, largest first.

    Args:
        kernel: `[B, N, N]`, symmetric, positive semidefinite.
        count: largest number of picks.
    """

    def __init__(self, kernel: Tensor, count: int):
        self.kernel = kernel
        self.diagonal = kernel.diagonal(dim1=1, dim2=2)
        self.left = self.diagonal.clone()
        # anything below is rounding error of the sums over the picks
        self.floor = self.diagonal * (32 * torch.finfo(kernel.dtype).eps)
        self.factors = kernel.new_zeros(len(kernel), count, kernel.shape[1])
        self.picked = 0

    def scores(self, free: Tensor) -> Tensor:
        """Unexplained part of each candidate; the explained ones rank below, negative, by their diagonal."""
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
