"""HiRED's budgets of crops: released strips, and what `fixed` makes of them."""

from __future__ import annotations

import pytest
import torch

from duet.baselines import hired


def looks_at(rows: range, columns: range, side: int = 8) -> torch.Tensor:
    """`[1, side * side]`: attention on a rectangle of the whole picture."""
    attention = torch.full((side, side), 0.01)
    attention[rows.start : rows.stop, columns.start : columns.stop] += 0.5
    return attention.flatten()[None]


def test_strips_and_quarters():
    """What lies in the lower left quarter counts for the third quarter, or for the last two strips."""
    first = looks_at(range(4, 8), range(4))
    options = {"keep": 64, "cls_attention_first": first, "partition": (2, 2)}
    # 32 of 64 positions count: the 16 of the rectangle, and the first 16 of the others, rows 0 and 1
    assert hired.tile_budgets(**options).tolist() == [[32, 16, 0, 8, 8]]
    assert hired.tile_budgets(**options, tiles="fixed").tolist() == [[32, 8, 8, 16, 0]]


def test_crops_that_unpadding_cut():
    """A crop of two rows shows a third of the picture beside one of four, and gets no more than it has."""
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
