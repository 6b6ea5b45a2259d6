"""Cut a grid of patches into any number of cells of nearly equal size. Host arithmetic: no tensor is read."""

from __future__ import annotations

from itertools import pairwise
from math import prod

import torch
from torch import Tensor


def most_square(tokens: int) -> tuple[int, int]:
    """The most nearly square `rows <= columns` for exactly `tokens` cells: 576 -> 24 x 24, 350 -> 14 x 25."""
    rows = next(rows for rows in range(int(tokens**0.5), 0, -1) if tokens % rows == 0)
    return rows, tokens // rows


def as_rows(tokens: int, grid: tuple[int, ...] | None) -> tuple[int, int]:
    """Rows and columns of a grid `(h, w)` or `(t, h, w)`, frames stacked; without a grid, `most_square`.

    Raises:
        ValueError: the grid does not hold `tokens`.
    """
    if grid is None:
        return most_square(tokens)
    columns = grid[-1]
    if columns < 1 or tokens % columns or tokens // columns != prod(grid[:-1]):
        raise ValueError(f"a grid of {' x '.join(map(str, grid))} does not hold {tokens} tokens")
    return tokens // columns, columns


def split_evenly(length: int, parts: int) -> list[tuple[int, int]]:
    """Split `length` into `parts` consecutive spans whose sizes differ by at most 1."""
    edges = [number * length // parts for number in range(parts + 1)]
    return list(pairwise(edges))


def cut_into_cells(grid: tuple[int, int], count: int) -> list[tuple[int, int, int, int]]:
    """Tile a grid with exactly `count` cells: bands of rows, each cut into cells.

    The number of bands makes the cells as square as possible. If `count` is not a multiple of it, some bands have one
    cell more; they are spread over the height.

    Args:
        grid: rows and columns.
        count: at least 1, at most rows x columns.

    Returns:
        `(top, bottom, left, right)` of each cell in raster order, ends excluded; no cell is empty.
    """
    height, width = grid
    bands = round((count * height / width) ** 0.5)
    bands = min(max(bands, -(-count // width), 1), height, count)
    cells = []
    spans = split_evenly(height, bands)
    for (top, bottom), (first, last) in zip(spans, split_evenly(count, bands), strict=True):
        cells += [(top, bottom, left, right) for left, right in split_evenly(width, last - first)]
    return cells


def middle_patches(grid: tuple[int, int], count: int) -> Tensor:
    """The middle patch of each cell, `[count]` long, ascending; of two or four middle patches, the upper left one.

    All cells of a band span the same rows, so these patches are in the order of the cells.
    """
    places = [
        (top + bottom - 1) // 2 * grid[1] + (left + right - 1) // 2
        for top, bottom, left, right in cut_into_cells(grid, count)
    ]
    return torch.tensor(places, dtype=torch.long)


def cell_of_patches(grid: tuple[int, int], count: int) -> Tensor:
    """The cell of each patch, `[rows x columns]` long."""
    cell = torch.empty(grid, dtype=torch.long)
    for number, (top, bottom, left, right) in enumerate(cut_into_cells(grid, count)):
        cell[top:bottom, left:right] = number
    return cell.flatten()
