"""TRIO (2026, arXiv 2602.04657; PIO-FVLM at first): visual tokens that the next layer's output depends on.

Repository: ocy1/PIO-FVLM @ 0183287. It has the model around the rule, without the rule itself: the body of its
`PIO_layer_prune` is missing. From the paper: tokens are ordered by the norm of the gradient of a layer-local proxy
loss, which asks how far the output of the layer at the text moves; one goes down this order and suppresses tokens that
are too similar to one that is kept (non-maximum suppression), until K are kept. No attention map is needed. Stage 1 and
the drops are VScan's; without a stage 1 it is `stage2:trio`. Survivors are renumbered.

Our choices: the loss is half the squared distance between the states of the text after the last picture before and
after the layer that comes next; two tokens are too similar if the cosine of their hidden states is above 0.9; once no
others are left, the best of the suppressed follow. `layers` looks farther ahead. The small world does not tell these
choices apart (docs/beyond.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from duet.edit import NONE, Edit
from duet.ops.gather import close_gaps, take
from duet.ops.greedy import Suppression, greedy
from duet.ops.saliency import gradient_norms
from duet.ops.similarity import cosines

if TYPE_CHECKING:
    from torch import Tensor

    from duet.types import LayerView


@torch.no_grad()
def select(*, keep: int, scores: Tensor, hidden: Tensor, threshold: float, real: Tensor) -> Tensor:
    """Non-maximum suppression in the order of the scores.

    Args:
        keep: K.
        scores: `[B, V]`.
        hidden: `[B, V, D]`.
        threshold: largest cosine of a token to one that is kept before it.
        real: `[B, V]` bool, False at padding.

    Returns:
        `[B, K]` long, in the order of picking; a row with fewer tokens is filled up with 0.
    """
    return greedy(Suppression(scores, cosines(hidden), threshold), keep, real)


@dataclass(frozen=True)
class Trio:
    """Stage 2 by `select`, at every drop of the budget.

    Args:
        layers: how many layers the loss looks ahead; those that are left, if there are fewer.
        threshold: cosine above which a token is suppressed; 1 for none.
    """

    layers: int = 1
    threshold: float = 0.9

    needs: ClassVar[frozenset[str]] = frozenset()
    layer: ClassVar[str] = "next"

    def __post_init__(self) -> None:
        if self.layers < 1:
            raise ValueError(f"layers is {self.layers}; it must be at least 1")
        if not -1 <= self.threshold <= 1:
            raise ValueError(f"threshold is {self.threshold}; it must be a cosine, from -1 to 1")

    def score(self, view: LayerView) -> tuple[Tensor, Tensor]:
        """`[B, T]` norms of the gradients, and the text tokens whose output is watched."""
        ahead = view.ahead
        assert ahead is not None
        return gradient_norms(lambda hidden: ahead(hidden, self.layers), view.hidden, view.text), view.text

    def edit(self, view: LayerView, scores: Tensor, counts: Tensor) -> Edit:
        """Keep `counts [B]` visual tokens of each row."""
        tokens = scores.shape[1]
        index, real = close_gaps(view.visual, int(view.visual.sum(1).max()), left=False)
        picks = select(
            keep=int(counts.max()),
            scores=take(scores, index),
            hidden=take(view.hidden, index),
            threshold=self.threshold,
            real=real,
        )
        count = torch.minimum(counts, real.sum(1))[:, None]
        picked = torch.arange(picks.shape[1], device=picks.device) < count
        kept = torch.where(picked, take(index, picks), tokens).sort(-1).values
        return Edit.keep(torch.where(kept < tokens, kept, NONE), tokens)
