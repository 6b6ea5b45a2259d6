"""The frame that stage-1 methods share: split off the dominant patches, and put the output tokens together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from duet.ops.gather import take
from duet.ops.select import top_and_rest
from duet.types import Reduction

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
    """Dominant patches `[B, A]` and the rest `[B, N - A]`, both ascending, and how many contextual tokens to make."""

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
    merged: Tensor | None = None,
    anchors: Tensor | None = None,
    members: Tensor | None = None,
    cluster: Tensor | None = None,
) -> Reduction:
    """`[CLS, dominant, contextual]` with its bookkeeping.

    Args:
        states: the encoder's output.
        split: dominant patches.
        merged: `[B, C, D]` contextual features; None for none.
        anchors: `[B, C]` the patch that stands for each of them.
        members: `[B, P]` other merged patches; cluster: `[B, P]` their contextual token.
    """
    batch, patches, _ = states.features.shape
    device = states.features.device
    kept = [split.dominant]
    features = [take(states.features, split.dominant)]
    if states.cls is not None:
        kept.insert(0, torch.full((batch, 1), -1, dtype=torch.long, device=device))
        features.insert(0, states.cls[:, None])
    first = len(kept) - 1
    assign = torch.full((batch, patches), -1, dtype=torch.long, device=device)
    assign = assign.scatter(1, split.dominant, _slots(first, split.dominant))
    if merged is not None and anchors is not None and members is not None and cluster is not None:
        kept.append(anchors)
        features.append(merged)
        slot = first + split.dominant.shape[1]
        # amin: a patch in several neighbourhoods is drawn in the one of the best anchor.
        assign = assign.scatter_reduce(1, members, cluster + slot, "amin", include_self=False)
        assign = assign.scatter(1, anchors, _slots(slot, anchors))
    contextual = 0 if anchors is None else anchors.shape[1]
    return Reduction(torch.cat(features, 1), torch.cat(kept, 1), assign, contextual)


def _slots(first: int, like: Tensor) -> Tensor:
    return torch.arange(first, first + like.shape[1], device=like.device).expand_as(like)
