"""Random pictures for the stage-1 tests, as a reducer sees them and as the plain restatement does."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from duet.budget import Stage1
from duet.ops.media import apply_edit
from duet.types import Reduction, VisionStates
from tests.plain_stage1 import Picture, Reduced


def make_pictures(patches: int, cls: bool, seed: int, count: int = 2) -> list[Picture]:
    """Pictures in float64 whose attention rows sum to one."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    tokens = patches + cls
    return [
        Picture(
            normal(patches, 3),
            normal(3) if cls else None,
            normal(patches, 4),
            normal(tokens, tokens).mul(2).softmax(-1),
        )
        for _ in range(count)
    ]


def states_of(pictures: list[Picture]) -> VisionStates:
    """The same pictures as one batch."""
    has_cls = pictures[0].cls is not None
    maps = torch.stack([picture.attention for picture in pictures])[:, has_cls:, has_cls:]

    def scores(rule: str) -> Tensor:
        return torch.tensor([picture.score(rule) for picture in pictures], dtype=torch.float64)

    return VisionStates(
        features=torch.stack([picture.features for picture in pictures]),
        cls=torch.stack([picture.cls for picture in pictures]) if has_cls else None,
        keys=torch.stack([picture.keys for picture in pictures]),
        scores={"cls_attention": scores("cls_row"), "received_attention": scores("column_mean")},
        attention_rows=lambda index: maps.gather(1, index[..., None].expand(-1, -1, maps.shape[2])),
    )


def reduce(reducer: Any, states: VisionStates, budget: Stage1) -> Reduction:
    """What the engine makes of a reducer's edit."""
    return apply_edit(states, reducer(states, budget))


def assert_equal(reduction: Reduction, plain: list[Reduced]) -> None:
    """A batched reduction against the plain one of each picture; of two neighbourhoods the first owns a patch."""
    for b, wanted in enumerate(plain):
        assert reduction.kept[b].tolist() == wanted.kept
        torch.testing.assert_close(reduction.features[b], torch.stack(wanted.features))
        slots = {patch: slot for slot, group in reversed(list(enumerate(wanted.merged))) for patch in group}
        slots.update({patch: slot for slot, patch in enumerate(wanted.kept) if patch >= 0})
        assert reduction.assign[b].tolist() == [slots.get(patch, -1) for patch in range(reduction.assign.shape[1])]
