"""Traces written by hand -> maps over patches; and real traces of every family against what the engine says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from duet import attach, record
from duet.budget import Budget
from duet.engine.trace import Trace
from duet.llava.anyres import lay_out
from duet.report.kept import kept_patches
from duet.types import Reduction, StageTrace
from tests import tiny_llava, tiny_llava_next, tiny_qwen, tiny_qwen3, tiny_video_llava

BUDGET = Budget(6, 3, 2, (2, 4), (0.6, 0.25))


def reduction(kept: list[int], assign: list[int], contextual: int = 1) -> Reduction:
    return Reduction(torch.zeros(1, len(kept), 1), torch.tensor([kept]), torch.tensor([assign]), contextual)


def stage(boundary: int, kept: list[int], candidates: list[int], scores: list[float]) -> StageTrace:
    part: list[Tensor] = [torch.tensor(kept, dtype=torch.long)]
    return StageTrace(boundary, part, [torch.tensor(candidates)], [torch.tensor(scores)], [torch.tensor([9])])


def trace(reductions: list[Reduction], stages: list[StageTrace], origins: list[tuple[int, int]]) -> Trace:
    filled = Trace()
    filled.reductions = [reductions] if reductions else []
    filled.stages, filled.entered, filled.origins = stages, [len(origins)], [torch.tensor(origins)]
    return filled


#: Nine patches: CLS, patches 1 and 4 clear, patch 6 represents {6, 7, 8}; 0, 2, 3, 5 dropped.
ONE = reduction([-1, 1, 4, 6], [-1, 1, -1, -1, 2, -1, 3, 3, 3])
ORDER = [(0, token) for token in range(4)]


def test_stage_1() -> None:
    ((step,),) = kept_patches(trace([ONE], [], ORDER), [9])
    assert (step.boundary, step.before, step.left, step.cls, step.scores) == (0, 9, 4, True, None)
    assert step.clear.nonzero()[0].tolist() == [1, 4]
    assert step.cluster.tolist() == [-1, -1, -1, -1, -1, -1, 0, 0, 0]
    assert step.anchors.tolist() == [6]


def test_kept_tokens_that_others_flow_into_are_merged_ones() -> None:
    """No contextual tokens (FastVID, PruMerge): patch 1 is on its own, 4 has taken in 5 and 3, 6 has taken in 7."""
    made = reduction([1, 4, 6], [-1, 0, -1, 1, 1, 1, 2, 2, -1], contextual=0)
    ((step,),) = kept_patches(trace([made], [], [(0, token) for token in range(3)]), [9])
    assert step.clear.nonzero()[0].tolist() == [1]
    assert step.cluster.tolist() == [-1, -1, -1, 0, 0, 0, 1, 1, -1]
    assert step.anchors.tolist() == [4, 6] and step.left == 3


def test_a_drop_takes_a_merged_token_with_all_its_patches() -> None:
    drops = [stage(2, [0, 2, 3], [0, 1, 2, 3], [4.0, 1.0, 2.0, 3.0]), stage(3, [2], [0, 2, 3], [1.0, 9.0, 2.0])]
    ((_, first, second),) = kept_patches(trace([ONE], drops, ORDER), [9])
    assert (first.before, first.left, first.cls) == (4, 3, True)
    assert first.clear.nonzero()[0].tolist() == [4]
    assert first.cluster.tolist()[6:] == [0, 0, 0]
    assert np.nan_to_num(first.scores, nan=-1).tolist() == [-1, 1, -1, -1, 2, -1, 3, 3, 3]
    assert (second.before, second.left, second.cls) == (3, 1, False)
    assert second.clear.nonzero()[0].tolist() == [4]
    assert (second.cluster == -1).all() and len(second.anchors) == 0
    assert np.nan_to_num(second.scores, nan=-1).tolist() == [-1, -1, -1, -1, 9, -1, 2, 2, 2]


def test_tokens_may_enter_in_any_order() -> None:
    """Two units of other sizes, their tokens mixed: patches 4 and 1 of the second, CLS and patch 0 of the first ..."""
    small = reduction([-1, 0, 1], [1, 2], contextual=0)
    drop = stage(2, [0, 2, 5], list(range(7)), [float(number) for number in range(7)])
    order = [(1, 2), (1, 1), (0, 0), (0, 1), (1, 3), (0, 2), (1, 0)]
    first, second = kept_patches(trace([small, ONE], [drop], order), [2, 9])
    assert (first[1].before, first[1].left, first[1].cls) == (3, 2, True)
    assert first[1].clear.tolist() == [False, True]
    assert first[1].scores is not None and first[1].scores.tolist() == [3, 5]
    assert second[1].clear.nonzero()[0].tolist() == [4] and (second[1].cluster == -1).all()
    assert second[1].scores is not None and second[1].scores[[1, 4, 6, 7]].tolist() == [1, 0, 4, 4]


@pytest.mark.parametrize("cls", [0, 1])
def test_without_stage_1_every_patch_is_a_token(cls: int) -> None:
    count = 4 + cls
    drop = stage(2, [cls, count], list(range(2 * count)), [1.0] * 2 * count)
    order = [(unit, patch) for unit in range(2) for patch in range(-cls, 4)]
    first, second = kept_patches(trace([], [drop], order), [4, 4])
    assert first[0].clear.tolist() == [True, False, False, False]
    assert (second[0].left, second[0].cls) == (1, bool(cls))
    assert second[0].clear.any() != bool(cls)


def llava(**options: Any) -> tuple[Any, dict[str, Tensor], list[int]]:
    model = tiny_llava.tiny_llava(**options)
    full = options.get("strategy") == "full"
    row = tiny_llava.make_row(2, placeholders=tiny_llava.PATCHES + full)
    return model, tiny_llava.collate([row]), [tiny_llava.PATCHES] * 2


def video_llava() -> tuple[Any, dict[str, Tensor], list[int]]:
    row = tiny_video_llava.make_row("vp")
    units = tiny_video_llava.FRAMES + 1
    return tiny_video_llava.tiny_video_llava(), tiny_video_llava.collate([row]), [tiny_video_llava.PATCHES] * units


def qwen() -> tuple[Any, dict[str, Tensor], list[int]]:
    row = tiny_qwen.make_row((1, 3, 5), (2, 4, 4), (1, 5, 3))
    return tiny_qwen.tiny_qwen(), tiny_qwen.collate([row]), [15, 16, 16, 15]


def qwen3() -> tuple[Any, dict[str, Tensor], list[int]]:
    row = tiny_qwen3.make_row((1, 3, 5), (2, 4, 4), (1, 5, 3))
    return tiny_qwen3.tiny_qwen3(), tiny_qwen3.collate([row]), [15, 16, 16, 15]


def llava_next() -> tuple[Any, dict[str, Tensor], list[int]]:
    """Crops of other sizes, whose tokens enter row by row of the picture."""
    tiny, sizes = tiny_llava_next, [(70, 130), (60, 40)]
    row = tiny.prompt_of(tiny.make_row(*sizes))
    pinpoints = tuple((height, width) for height, width in tiny.PINPOINTS)
    crops = [crop.size for size in sizes for crop in lay_out(size, pinpoints, tiny.SIZE, tiny.SIDE).crops]
    return tiny.tiny_llava_next(), tiny.collate([row]), [rows * columns for rows, columns in crops]


FAMILIES = {
    "next": llava_next,
    "llava": llava,
    "llava-cls": lambda: llava(strategy="full"),
    "video": video_llava,
    "qwen": qwen,
    "qwen3": qwen3,
}


@pytest.mark.parametrize("method", ["duet", "pyramiddrop"])
@pytest.mark.parametrize("positions", ["renumber", "keep"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_real_trace(family: str, positions: str, method: str) -> None:
    """The maps count as many tokens as the engine kept, and stage 1 shows what the reduction says."""
    model, inputs, patches = FAMILIES[family]()
    attach(model, method, BUDGET if method == "duet" else BUDGET.only(2), positions=positions)
    with record(model) as seen, torch.no_grad():
        model(**inputs)
    units = kept_patches(seen, patches)
    patches_and_cls = sum(patches) + {"llava-cls": 2, "video": tiny_video_llava.FRAMES}.get(family, 0)
    assert seen.full == [patches_and_cls]
    check_stage1(seen, units)
    for number, drop in enumerate(seen.stages, start=bool(seen.reductions)):
        assert sum(unit[number].left for unit in units) == len(drop.kept[0])
        best = max(float(np.nanmax(unit[number].scores)) for unit in units if unit[number].before)
        # CLS has a score, but no patch
        assert best <= float(drop.scores[0].max()) + 1e-7


def check_stage1(seen: Trace, units: list[list[Any]]) -> None:
    for unit, own in zip(units, seen.reductions[0] if seen.reductions else [], strict=False):
        dominant = own.kept[0, : own.kept.shape[1] - own.contextual].tolist()
        assert unit[0].clear.nonzero()[0].tolist() == sorted(patch for patch in dominant if patch >= 0)
        assert sorted(unit[0].anchors) == sorted(own.kept[0, len(dominant) :].tolist())
        for step in unit:
            assert step.left == step.cls + step.clear.sum() + len(step.anchors)
            assert (step.cluster[step.anchors] >= 0).all()


def test_trace_is_not_changed() -> None:
    filled = trace([ONE], [stage(2, [1], [0, 1, 2, 3], [1.0] * 4)], ORDER)
    before = ONE.kept.clone()
    kept_patches(filled, [9])
    assert torch.equal(ONE.kept, before)
