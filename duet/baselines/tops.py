"""TOPS (2026, arXiv 2606.27161): relevant, diverse and covering patches, chosen at three places. Code not public.

Built from the paper. One greedy rule: relevance + alpha x diversity + lambda x coverage, each divided by its mean over
the remaining candidates at every pick (its algorithm; its text says min-max); the first pick is the most relevant.
Diversity is 1 - the cosine to the nearest pick, coverage a candidate's gain over all picks in covering the others.
Stage 1 uses projected features, with CLS attention as relevance; stage 2 uses hidden states after 3/8 and 3/4 of the
layers, with the mean attention of text raters as relevance. Its "64" is 128 -> 64 -> 16, 76 on average; exactly 64 is
108 -> 54 -> 13. Renumbered.

Assumed, as in SparseVLM by the same authors: the definition of raters (`duet.ops.raters`), that they are chosen once,
and that the previous layer ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from duet.edit import NONE, Edit
from duet.ops.gather import close_gaps, take
from duet.ops.greedy import Preservation, everyone, greedy
from duet.ops.raters import remembered_raters
from duet.ops.reduce import SCORES, allowance, check_score
from duet.ops.scores import mean_vote
from duet.ops.similarity import cosines, exact

if TYPE_CHECKING:
    from torch import Tensor

    from duet.budget import Stage1
    from duet.types import LayerView, VisionStates

#: Weights of diversity and coverage; in stage 2 the latter is 1 at the paper's 64 and 32 tokens.
ALPHA, LAMBDA = 0.5, 0.5


@torch.no_grad()
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


@dataclass(frozen=True)
class Tops:
    """Stage 1 by `select`.

    Args:
        score: `cls_row`, or `column_mean` on towers without CLS.
        alpha: weight of diversity; lambda_: of coverage.
    """

    score: str = "cls_row"
    alpha: float = ALPHA
    lambda_: float = LAMBDA

    contextual: ClassVar[bool] = False
    scope: ClassVar[str] = "unit"

    def __post_init__(self) -> None:
        check_score(self.score)

    @property
    def needs(self) -> frozenset[str]:
        """The score row and projected features."""
        return frozenset({SCORES[self.score], "projected"})

    def __call__(self, states: VisionStates, budget: Stage1) -> Edit:
        """Keep as many patches as the budget has tokens."""
        assert states.projected is not None
        kept = select(
            keep=allowance(states, budget),
            projected=states.projected,
            cls_attention=states.scores[SCORES[self.score]],
            alpha=self.alpha,
            lambda_=self.lambda_,
        )
        return Edit.keep(kept, states.features.shape[1])


@dataclass(frozen=True)
class TopsPrune:
    """Stage 2: the same rule on hidden states, with the attention of text raters as relevance.

    Args:
        alpha: weight of diversity.
        lambda_: weight of coverage; 1 as in the paper at 64 and 32 tokens (at 128 it has 0.5).
    """

    alpha: float = ALPHA
    lambda_: float = 1.0

    needs: ClassVar[frozenset[str]] = frozenset({"embeddings"})
    layer: ClassVar[str] = "previous"

    def score(self, view: LayerView) -> tuple[Tensor, Tensor]:
        """`[B, T]` mean attention over heads and raters, and the raters."""
        voters = remembered_raters(view)
        rows = view.attention(voters)
        return mean_vote(rows.probabilities, rows.real), voters

    def edit(self, view: LayerView, scores: Tensor, counts: Tensor) -> Edit:
        """Keep `counts [B]` visual tokens of each row that are relevant, diverse and cover the others."""
        tokens = scores.shape[1]
        index, real = close_gaps(view.visual, int(view.visual.sum(1).max()), left=False)
        similarity = cosines(take(view.hidden, index))
        relevance = exact(take(scores, index)) * real
        objective = Preservation(similarity, relevance.to(similarity), real, self.alpha, self.lambda_)
        picks = take(index, greedy(objective, int(counts.max()), real))
        count = torch.minimum(counts, real.sum(1))[:, None]
        picked = torch.arange(picks.shape[1], device=picks.device) < count
        kept = torch.where(picked, picks, tokens).sort(-1).values
        return Edit.keep(torch.where(kept < tokens, kept, NONE), tokens)
