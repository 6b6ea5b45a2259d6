"""Grids cut into cells."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duet.ops.grids import as_rows, cell_of_patches, cut_into_cells, middle_patches, most_square, split_evenly


@pytest.mark.parametrize(
    ("tokens", "grid"), [(576, (24, 24)), (350, (14, 25)), (330, (15, 22)), (13, (1, 13)), (1, (1, 1))]
)
def test_most_square(tokens, grid):
    assert most_square(tokens) == as_rows(tokens, None) == grid


def test_frames_are_stacked():
    assert as_rows(24, (2, 3, 4)) == (6, 4)
    assert as_rows(24, (4, 6)) == (4, 6)


@pytest.mark.parametrize("grid", [(5, 5), (2, 3, 5), (0, 24), (24, 0)])
def test_a_grid_of_another_size_is_refused(grid):
    with pytest.raises(ValueError, match="does not hold 24 tokens"):
        as_rows(24, grid)


@given(st.integers(1, 50), st.integers(1, 50))
def test_spans_fill_a_length_evenly(length, parts):
    spans = split_evenly(length, parts)
    sizes = [last - first for first, last in spans]
    assert len(spans) == parts and sum(sizes) == length and max(sizes) - min(sizes) <= 1


@given(st.integers(1, 30), st.integers(1, 30), st.data())
def test_cells_tile_the_grid(height, width, data):
    count = data.draw(st.integers(1, height * width))
    grid = (height, width)
    cells = cut_into_cells(grid, count)
    assert len(cells) == count and all(top < bottom and left < right for top, bottom, left, right in cells)
    assert sum((bottom - top) * (right - left) for top, bottom, left, right in cells) == height * width
    cell, middles = cell_of_patches(grid, count), middle_patches(grid, count)
    assert (middles.diff() > 0).all()
    assert cell[middles].tolist() == list(range(count))


def test_cells_are_nearly_square():
    assert cut_into_cells((4, 8), 2) == [(0, 4, 0, 4), (0, 4, 4, 8)]
    assert cut_into_cells((8, 4), 2) == [(0, 4, 0, 4), (4, 8, 0, 4)]
    assert [right - left for *_, left, right in cut_into_cells((4, 4), 5)] == [2, 2, 1, 1, 2]
