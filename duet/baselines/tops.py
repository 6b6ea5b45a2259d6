"""TOPS (2026, arXiv 2606.27161): relevant, diverse and covering patches, chosen at three places. **Code not public.**

Built from the paper. One rule, greedy: relevance + alpha x diversity + lambda x coverage, each divided by its mean
over the candidates that are left at every pick (its algorithm; its text says min-max); the first pick is the most
relevant. Diversity is 1 - the cosine to the nearest pick, coverage what a candidate covers of the others better than
all picks. Stage 1 runs on projected features, relevance being CLS attention; stage 2 on hidden states behind 3/8 and
3/4 of the layers, relevance being the mean attention of text raters. Its "64" is 128 -> 64 -> 16, 76 on average; 64
exactly is 108 -> 54 -> 13. Numbered anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from duet.ops.greedy import Coverage, everyone, greedy, row_of
from duet.ops.similarity import cosines, exact

if TYPE_CHECKING:
    from torch import Tensor

#: Weights of diversity and coverage; in stage 2 the latter is 1 at the paper's 64 and 32 tokens.
ALPHA, LAMBDA = 0.5, 0.5


def select(
    *, keep: int, projected: Tensor, cls_attention: Tensor, alpha: float = ALPHA, lambda_: float = LAMBDA
) -> Tensor:
    """Stage 1: relevant, diverse and covering patches.

    Args:
        keep: K.
        projected: `[B, N, P]`.
        cls_attention: `[B, N]`, over heads summed or averaged.
        alpha: weight of diversity; lambda_: of coverage.

    Returns:
        `[B, K]` long, ascending.
    """
    objective = Preservation(cosines(projected), exact(cls_attention), everyone(projected), alpha, lambda_)
    return greedy(objective, keep, everyone(projected)).sort(-1).values


class Preservation:
    """TOPS' objective (`duet.ops.greedy.Objective`): three terms, each divided by its mean over the candidates left.

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
        # what rounding leaves of a term is 0: divided by its own mean it would count like any other
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
    """A term divided by its mean over the candidates left; 0 where that is 0."""
    mean = (term * free).sum(-1, keepdim=True) / free.sum(-1, keepdim=True).clamp_min(1)
    return torch.where(mean > 0, term / mean.clamp_min(torch.finfo(term.dtype).tiny), 0)
