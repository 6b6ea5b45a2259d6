"""DUET's local clusters (paper Sec. 3.1, Algorithm 1): merge only near the contextual tokens, discard the rest.

Stage 1 of every `(C)` row. `[B, N, D]` patches and CLS -> `[CLS, dominant ascending, contextual]`. Two variants:

* `released` (`clip_encoder_cw.py`): the best `cluster_width * contextual` residual patches form a pool. By score,
  every `cluster_width`-th of them is an anchor; each other one goes to the anchor with the most similar key.
* `paper`: the best `contextual` residual patches are centroids; each is replaced by the mean of the `cluster_width`
  residual patches that it attends to most. Neighbourhoods may overlap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from duet.ops.gather import take
from duet.ops.merge import nearest_anchor, spaced
from duet.ops.reduce import SCORES, Split, assemble, check_score, split_dominant
from duet.ops.select import ranked

if TYPE_CHECKING:
    from torch import Tensor

    from duet.budget import Stage1
    from duet.edit import Edit
    from duet.types import VisionStates


@dataclass(frozen=True)
class DuetMerge:
    """Local cluster aggregation.

    Args:
        contextual_merge: `released` or `paper`, see the module docstring.
        score: `cls_row` or `column_mean`, as in `VisionZip`.
    """

    contextual_merge: str = "released"
    score: str = "cls_row"

    def __post_init__(self) -> None:
        check_score(self.score)
        if self.contextual_merge not in ("released", "paper"):
            raise ValueError(f"contextual_merge is {self.contextual_merge!r}; choose released or paper")

    contextual: ClassVar[bool] = True
    scope: ClassVar[str] = "unit"
    compiles: ClassVar[bool] = True

    @property
    def needs(self) -> frozenset[str]:
        """Score row, and keys (released) or attention rows (paper)."""
        return frozenset({SCORES[self.score], "keys" if self.contextual_merge == "released" else "attention_rows"})

    def __call__(self, states: VisionStates, budget: Stage1) -> Edit:
        """Reduce each picture to `dominant + contextual` tokens."""
        scores = states.scores[SCORES[self.score]]
        split = split_dominant(states, scores, budget)
        if split.contextual == 0:
            return assemble(states, split)
        merge = self._released if self.contextual_merge == "released" else self._paper
        return merge(states, split, take(scores, split.rest), budget.cluster_width)

    def _released(self, states: VisionStates, split: Split, rest_scores: Tensor, width: int) -> Edit:
        assert states.keys is not None
        pool_size = min(width * split.contextual, split.rest.shape[1])
        pool = take(split.rest, ranked(rest_scores, pool_size))
        anchors, members = spaced(pool, split.contextual)
        cluster = nearest_anchor(states.keys, anchors, members)
        return assemble(states, split, anchors, members, cluster)

    def _paper(self, states: VisionStates, split: Split, rest_scores: Tensor, width: int) -> Edit:
        assert states.attention_rows is not None
        centroids = take(split.rest, ranked(rest_scores, split.contextual))
        batch, count = centroids.shape
        affinity = states.attention_rows(centroids).gather(2, split.rest[:, None].expand(-1, count, -1))
        width = min(width, split.rest.shape[1])
        neighbours = take(split.rest, ranked(affinity, width).flatten(1))
        cluster = torch.arange(count, device=centroids.device).repeat_interleave(width).expand(batch, -1)
        return assemble(states, split, centroids, neighbours, cluster, share=0.0)
