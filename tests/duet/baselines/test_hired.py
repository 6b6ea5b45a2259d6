"""HiRED's budgets of crops: released strips, and what `fixed` makes of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import duet
from duet.baselines import hired
from duet.budget import Budget
from tests import tiny_llava_next, tiny_video_llava
from tests.plain_duet import eager


def looks_at(rows: range, columns: range, side: int = 8) -> torch.Tensor:
    """`[1, side * side]`: attention on a rectangle of the whole picture."""
    attention = torch.full((side, side), 0.01)
    attention[rows.start : rows.stop, columns.start : columns.stop] += 0.5
    return attention.flatten()[None]


def test_strips_and_quarters():
    """Positions in the lower left quarter count for the third crop, or for the last two strips."""
    first = looks_at(range(4, 8), range(4))
    options = {"keep": 64, "cls_attention_first": first, "partition": (2, 2)}
    # 32 of 64 positions count: the 16 of the rectangle, and the first 16 of the others, rows 0 and 1
    assert hired.tile_budgets(**options).tolist() == [[32, 16, 0, 8, 8]]
    assert hired.tile_budgets(**options, tiles="fixed").tolist() == [[32, 8, 8, 16, 0]]


def test_crops_that_unpadding_cut():
    """A crop of two rows next to one of four shows a third of the picture, and gets no more than it has."""
    first = looks_at(range(8), range(8))
    grids = [(8, 8), (2, 8), (4, 8)]
    options = {"keep": 100, "cls_attention_first": first, "partition": (2, 1), "grids": grids}
    assert hired.tile_budgets(**options).tolist() == [[50, 16, 0]]
    # all rows are equal, so the first 32 positions count: rows 0 to 3 of 8; a third of the picture is 2 2/3 rows
    assert hired.tile_budgets(**options, tiles="fixed").tolist() == [[50, 16, 12]]


def test_rows_are_divided_on_their_own():
    first = torch.cat([looks_at(range(4), range(8)), looks_at(range(4, 8), range(8))])
    counts = hired.tile_budgets(keep=20, cls_attention_first=first, partition=(2, 1))
    assert counts.tolist() == [[10, 10, 0], [10, 0, 10]]


@pytest.mark.parametrize("keep", [0, 1, 7, 190, 192])
def test_no_crop_gets_more_than_it_has(keep):
    first = looks_at(range(2), range(2))
    for tiles in hired.TILES:
        counts = hired.tile_budgets(keep=keep, cls_attention_first=first, partition=(1, 2), tiles=tiles)[0]
        assert int(counts.sum()) <= keep and int(counts.max()) <= 64


def test_the_best_of_each_crop():
    scores = torch.tensor([[0.1, 0.5, 0.5, 0.9, 0.2, 0.3], [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]])
    unit = torch.tensor([0, 0, 0, 1, 1, 2])
    counts = torch.tensor([[1, 2, 0], [2, 0, 1]])
    chosen = hired.choose(cls_attention=scores, unit=unit, counts=counts)
    assert chosen.long().tolist() == [[0, 1, 0, 1, 1, 0], [1, 1, 0, 0, 0, 1]]
    filled = hired.choose(cls_attention=scores, unit=unit, counts=counts, fill=5)
    assert filled.long().tolist() == [[0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 1]]


def looked_at(model: Any, crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """CLS rows `[C, N]` of the tower's first layer and of the one before the last, sum over heads."""
    maps = model.model.vision_tower(crops, output_attentions=True).attentions
    return maps[0].sum(1)[:, 0, 1:], maps[-2].sum(1)[:, 0, 1:]


@pytest.mark.parametrize("tiles", hired.TILES)
@torch.no_grad()
def test_crops_of_llava_next_share_the_budget_of_their_picture(tiles):
    """Two square crops of a broad picture and four of a square one, none of them padded, in one row."""
    row = tiny_llava_next.prompt_of(tiny_llava_next.make_row((56, 112), (90, 90), (112, 56)))
    model = tiny_llava_next.tiny_llava_next()
    plain = eager(model)
    duet.attach(model, "hired", Budget(dominant=5), tiles=tiles)
    with duet.record(model) as trace:
        model(**tiny_llava_next.collate([row]))
    found = iter(trace.reductions[0])
    for crops, partition in zip(row.crops, [(1, 2), (2, 2), (2, 1)], strict=True):
        first, last = looked_at(plain, crops)
        budget = 5 * len(crops)
        counts = hired.tile_budgets(keep=budget, cls_attention_first=first[:1], partition=partition, tiles=tiles)[0]
        assert int(counts[0]) == budget // 2
        kept = [next(found).kept[0].tolist() for _ in crops]
        for tokens, scores, count in zip(kept, last, counts.tolist(), strict=True):
            best = scores.sort(descending=True, stable=True).indices[: len(tokens)]
            assert tokens == best.sort().values.tolist()
            assert len(tokens) == count or (tiles == "fixed" and len(tokens) > count)
        total = sum(map(len, kept))
        assert total == (budget if tiles == "fixed" else int(counts.sum()))


@torch.no_grad()
def test_padded_crops_of_llava_next():
    """Patches cut by unpadding belong to no crop; every crop keeps at most what it has."""
    row = tiny_llava_next.prompt_of(tiny_llava_next.make_row((50, 90), (30, 100), (100, 40)))
    model = tiny_llava_next.tiny_llava_next()
    duet.attach(model, "hired", Budget(dominant=12), tiles="fixed")
    with duet.record(model) as trace:
        output = model(**tiny_llava_next.collate([row]))
    assert torch.isfinite(output.logits).all()
    for reduction in trace.reductions[0]:
        assert len(set(reduction.kept[0].tolist())) == reduction.kept.shape[1] <= reduction.assign.shape[1]
    assert sum(reduction.kept.shape[1] for reduction in trace.reductions[0]) == trace.entered[0]


@torch.no_grad()
def test_frames_of_a_video_share_evenly():
    row = tiny_video_llava.make_row("v")
    model = tiny_video_llava.tiny_video_llava()
    duet.attach(model, "hired", Budget(dominant=3))
    with duet.record(model) as trace:
        model(**tiny_video_llava.collate([row]))
    assert {reduction.kept.shape[1] for reduction in trace.reductions[0]} == {3}


def test_switches_are_checked():
    with pytest.raises(ValueError, match="choose released or fixed"):
        hired.HiRED(tiles="quarters")
