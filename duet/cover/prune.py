"""Stage 2 of `duet_cover`: the tokens that cover the remaining ones best.

Early layers have not read the question yet, so the votes of the text say little about what will be asked; tokens that
cover the picture serve any question. A token's gain is how much better the candidates are covered with it than with all
picks so far, by the cosines of their hidden states, if wanted times its votes to a power. No attention is read. With
proportional attention a token that stands for n patches counts n times, in coverage and where tokens are merged.
TOPS (`duet/baselines/tops.py`) adds such terms instead. docs/beyond.md has the experiments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from duet.edit import NONE, Edit
from duet.ops.coverage import clusters
from duet.ops.gather import close_gaps, take
from duet.ops.greedy import Coverage, greedy
from duet.ops.scores import mean_vote
from duet.ops.similarity import cosines, exact

if TYPE_CHECKING:
    from torch import Tensor

    from duet.types import LayerView

TRAITS = ("embeddings", "hidden")
MERGES = ("cluster", "none")


@torch.no_grad()
def order(features: Tensor, weight: Tensor, real: Tensor, count: int, sizes: Tensor | None = None) -> Tensor:
    """The candidates that cover the others best, `[B, count]` long, in the order of picking.

    Args:
        features: `[B, V, D]`.
        weight: `[B, V]`, factors on the gains.
        real: `[B, V]` bool, False at padding. A row with fewer candidates is filled up with 0.
        count: number of picks.
        sizes: `[B, V]`, how often each candidate counts when it is covered; None: once.
    """
    cover = cosines(features) * (real[:, None] & real[:, :, None])
    if sizes is not None:
        cover = cover * sizes.to(cover)[:, None]
    return greedy(Coverage(cover, weight), count, real, exact=False)


@dataclass(frozen=True)
class CoverPrune:
    """Stage 2 by `order`.

    Args:
        on: tokens are compared by their `hidden` states, or by their `embeddings`, as they entered the language model.
        votes: exponent of the text's votes; 0 for coverage alone.
        votes_after: number of drops that are made without votes.
        merge: `cluster`: each token that stays becomes the mean of itself and of those that it covers best; `none` to
            drop these.
        sizes: whether a token counts as often as it has patches; with proportional attention only.
    """

    on: str = "hidden"
    votes: float = 0.0
    votes_after: int = 0
    merge: str = "cluster"
    sizes: bool = True

    layer: ClassVar[str] = "next"

    def __post_init__(self) -> None:
        if self.on not in TRAITS:
            raise ValueError(f"on is {self.on!r}; choose {', '.join(TRAITS)}")
        if self.merge not in MERGES:
            raise ValueError(f"merge is {self.merge!r}; choose {', '.join(MERGES)}")
        if self.votes < 0:
            raise ValueError(f"votes is {self.votes}; it must be at least 0")
        if self.votes_after < 0:
            raise ValueError(f"votes_after is {self.votes_after}; it must be at least 0")

    @property
    def needs(self) -> frozenset[str]:
        """The embeddings, if tokens are compared by them."""
        return frozenset({"embeddings"} if self.on == "embeddings" else ())

    def score(self, view: LayerView) -> tuple[Tensor, Tensor]:
        """`[B, T]` mean attention over heads and all text tokens, and these; nobody votes if `votes` is 0."""
        if not self.votes or view.stage < self.votes_after:
            return torch.zeros(view.visual.shape, device=view.visual.device), torch.zeros_like(view.visual)
        rows = view.attention(view.text)
        return mean_vote(rows.probabilities, rows.real), view.text

    def edit(self, view: LayerView, scores: Tensor, counts: Tensor) -> Edit:
        """Keep `counts [B]` visual tokens of each row."""
        tokens = scores.shape[1]
        index, real = close_gaps(view.visual, int(view.visual.sum(1).max()), left=False)
        features = view.embeddings if self.on == "embeddings" else view.hidden
        assert features is not None
        voted = self.votes and view.stage >= self.votes_after
        weight = exact(take(scores, index)) ** self.votes if voted else torch.ones_like(real, dtype=torch.float32)
        sizes = take(view.sizes, index) if self.sizes and view.sizes is not None else None
        picks = take(index, order(take(features, index), weight, real, int(counts.max()), sizes))
        count = torch.minimum(counts, real.sum(1))[:, None]
        picked = torch.arange(picks.shape[1], device=picks.device) < count
        kept = torch.where(picked, picks, tokens).sort(-1).values
        kept = torch.where(kept < tokens, kept, NONE)
        if self.merge == "cluster" and kept.shape[1]:
            return clusters(features, index, real, kept, tokens, sizes)
        return Edit.keep(kept, tokens)
