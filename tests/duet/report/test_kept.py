"""Traces written by hand -> maps over patches; and a real trace against what the engine says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from duet import attach, record
from duet.budget import Budget
from duet.engine.trace import Trace
from duet.report.kept import kept_patches
from duet.types import Reduction, StageTrace
from tests.tiny_llava import PATCHES, tiny_llava


def reduction(kept: list[int], assign: list[int]) -> Reduction:
    return Reduction(torch.zeros(1, len(kept), 1), torch.tensor([kept]), torch.tensor([assign]))


def stage(boundary: int, kept: list[int], candidates: list[int], scores: list[float]) -> StageTrace:
    part: list[Tensor] = [torch.tensor(kept, dtype=torch.long)]
    return StageTrace(boundary, part, [torch.tensor(candidates)], [torch.tensor(scores)], [torch.tensor([9])])


def trace(reductions: list[Reduction], stages: list[StageTrace], entered: int) -> Trace:
    filled = Trace()
    filled.reductions = [reductions] if reductions else []
    filled.stages, filled.entered = stages, [entered]
    return filled


#: Nine patches: CLS, patches 1 and 4 clear, patch 6 stands for {6, 7, 8}; 0, 2, 3, 5 gone.
ONE = reduction([-1, 1, 4, 6], [-1, 1, -1, -1, 2, -1, 3, 3, 3])


def test_stage_1() -> None:
    ((step,),) = kept_patches(trace([ONE], [], 4), 9, contextual=1)
    assert (step.boundary, step.before, step.left, step.cls, step.scores) == (0, 9, 4, True, None)
    assert step.clear.nonzero()[0].tolist() == [1, 4]
    assert step.cluster.tolist() == [-1, -1, -1, -1, -1, -1, 0, 0, 0]
    assert step.anchors.tolist() == [6]


def test_a_drop_takes_a_merged_token_with_all_its_patches() -> None:
    drops = [stage(2, [0, 2, 3], [0, 1, 2, 3], [4.0, 1.0, 2.0, 3.0]), stage(3, [2], [0, 2, 3], [1.0, 9.0, 2.0])]
    ((_, first, second),) = kept_patches(trace([ONE], drops, 4), 9, contextual=1)
    assert (first.before, first.left, first.cls) == (4, 3, True)
    assert first.clear.nonzero()[0].tolist() == [4]
    assert first.cluster.tolist()[6:] == [0, 0, 0]
    assert np.nan_to_num(first.scores, nan=-1).tolist() == [-1, 1, -1, -1, 2, -1, 3, 3, 3]
    assert (second.before, second.left, second.cls) == (3, 1, False)
    assert second.clear.nonzero()[0].tolist() == [4]
    assert (second.cluster == -1).all() and len(second.anchors) == 0
    assert np.nan_to_num(second.scores, nan=-1).tolist() == [-1, -1, -1, -1, 9, -1, 2, 2, 2]


def test_tokens_in_place_are_in_the_order_of_their_patches() -> None:
    # patches 6 (a merged token), 1, 4; CLS goes into the first slot that is free, 0
    own = reduction([-1, 4, 6, 1], [-1, 3, -1, -1, 1, -1, 2, 2, 2])
    drop = stage(2, [1, 3], [0, 1, 2, 3], [0.0, 1.0, 4.0, 6.0])
    ((_, step),) = kept_patches(trace([own], [drop], 4), 9, in_place=True)
    assert step.clear.nonzero()[0].tolist() == [1, 6, 7, 8]
    assert step.scores is not None and step.scores[[1, 4, 6]].tolist() == [1, 4, 6]


def test_several_pictures_share_the_numbers_of_a_row() -> None:
    drop = stage(2, [1, 4, 6], list(range(8)), [float(number) for number in range(8)])
    first, second = kept_patches(trace([ONE, ONE], [drop], 8), 9, contextual=1)
    assert (first[1].left, second[1].left) == (1, 2)
    assert first[1].clear.nonzero()[0].tolist() == [1]
    assert second[1].cls and second[1].clear.nonzero()[0].tolist() == [4]
    assert second[1].scores is not None and second[1].scores[[1, 4, 6]].tolist() == [5, 6, 7]


@pytest.mark.parametrize("cls", [0, 1])
def test_without_stage_1_every_patch_is_a_token(cls: int) -> None:
    count = 4 + cls
    drop = stage(2, [cls, count], list(range(2 * count)), [1.0] * 2 * count)
    first, second = kept_patches(trace([], [drop], 2 * count), 4)
    assert first[0].clear.tolist() == [True, False, False, False]
    assert (second[0].left, second[0].cls) == (1, bool(cls))
    assert second[0].clear.any() != bool(cls)


@pytest.mark.parametrize("positions", ["renumber", "keep"])
@pytest.mark.parametrize("strategy", ["default", "full"])
def test_a_real_trace(positions: str, strategy: str) -> None:
    """The maps count as many tokens as the engine kept, and stage 1 shows what the reduction says."""
    model = tiny_llava(strategy=strategy)
    attach(model, "duet", Budget(6, 3, 2, (2, 4), (0.6, 0.25)), positions=positions)
    size = PATCHES + (strategy == "full")
    ids = torch.tensor([[1, *[model.config.image_token_id] * size, 5, *[model.config.image_token_id] * size, 6, 7]])
    pixels = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    with record(model) as seen, torch.no_grad():
        model(input_ids=ids, pixel_values=pixels)
    options: dict[str, Any] = {"in_place": positions == "keep", "cls_slot": strategy == "full"}
    pictures = kept_patches(seen, PATCHES, 3, **options)
    for picture, own in zip(pictures, seen.reductions[0], strict=True):
        patches = set(own.kept[0, 1:-3].tolist())
        assert picture[0].clear.nonzero()[0].tolist() == sorted(patches)
        assert sorted(picture[0].anchors) == sorted(own.kept[0, -3:].tolist())
        for step in picture:
            assert step.left == step.cls + step.clear.sum() + len(step.anchors)
            assert (step.cluster[step.anchors] >= 0).all()
    for number, drop in enumerate(seen.stages, start=1):
        assert sum(picture[number].left for picture in pictures) == len(drop.kept[0])
        best = max(float(np.nanmax(picture[number].scores)) for picture in pictures if picture[number].before)
        assert best <= float(drop.scores[0].max()) + 1e-7


def test_trace_is_not_changed() -> None:
    filled = trace([ONE], [stage(2, [1], [0, 1, 2, 3], [1.0] * 4)], 4)
    before = ONE.kept.clone()
    kept_patches(filled, 9, contextual=1, in_place=True)
    assert torch.equal(ONE.kept, before)
