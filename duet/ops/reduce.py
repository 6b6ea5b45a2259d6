"""Shared steps of stage-1 methods: split off the dominant patches, and assemble the output tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from duet.edit import CLS, Edit
from duet.ops.select import top_and_rest

if TYPE_CHECKING:
    from torch import Tensor

    from duet.budget import Stage1
    from duet.types import VisionStates

#: Switch value -> name of the score row in `VisionStates.scores`.
SCORES = {"cls_row": "cls_attention", "column_mean": "received_attention"}


def check_score(score: str) -> None:
    """Raise ValueError for an unknown stage-1 score."""
    if score not in SCORES:
        raise ValueError(f"score is {score!r}; choose {' or '.join(SCORES)}")


@dataclass(frozen=True)
class Split:
    """Dominant patches `[B, A]` and the rest `[B, N - A]`, both ascending, and the number of contextual tokens."""

    dominant: Tensor
    rest: Tensor
    contextual: int


def split_dominant(states: VisionStates, scores: Tensor, budget: Stage1) -> Split:
    """Take the best patches. `dominant` counts CLS where the tower has one (`visionzip/main.py` stores it minus 1)."""
    has_cls = states.cls is not None
    dominant, contextual = budget.resolve(states.features.shape[1], cls=has_cls)
    best, rest = top_and_rest(scores, dominant - has_cls)
    return Split(best, rest, contextual)


def assemble(
    states: VisionStates,
    split: Split,
    anchors: Tensor | None = None,
    members: Tensor | None = None,
    cluster: Tensor | None = None,
    share: float = 1.0,
) -> Edit:
    """`[CLS, dominant, contextual]`: each contextual token is `share` times its anchor plus the mean of its members.

    Both released codes compute this sum, not a mean over the whole cluster, which about doubles the norm. An anchor
    without members is only scaled.

    Args:
        states: the encoder's output.
        split: dominant patches.
        anchors: `[B, C]` the anchor patch of each contextual token; None for none.
        members: `[B, P]` the patches merged into them; cluster: `[B, P]` positions in `anchors`.
        share: weight of the anchors.
    """
    batch, patches, _ = states.features.shape
    kept = [split.dominant]
    if states.cls is not None:
        kept.insert(0, torch.full((batch, 1), CLS, dtype=torch.long, device=states.features.device))
    if anchors is None or members is None or cluster is None:
        return Edit.keep(torch.cat(kept, 1), patches)
    kept = [torch.cat(kept, 1), anchors]
    first, count = kept[0].shape[1], anchors.shape[1]
    exact = torch.promote_types(states.features.dtype, torch.float32)
    ones = torch.ones_like(cluster, dtype=exact)
    sizes = torch.zeros(batch, count, dtype=exact, device=cluster.device).scatter_add(1, cluster, ones)
    shares = None
    if share != 1:
        whole, part = torch.ones_like(kept[0], dtype=exact), torch.full_like(anchors, share, dtype=exact)
        shares = torch.cat([whole, part], 1)
    return Edit(torch.cat(kept, 1), patches, members, cluster + first, 1 / sizes.gather(1, cluster), shares, count)


def allowance(states: VisionStates, budget: Stage1) -> int:
    """Number of tokens that each row may keep, in its unit or in all units of its medium together.

    The count is the same with and without CLS: a method that does not keep CLS keeps a patch instead.
    """
    sizes = [height * width for height, width in states.unit_grids] or [states.features.shape[1]]
    return sum(min(sum(budget.resolve(size, cls=states.cls is not None)), size) for size in sizes)
