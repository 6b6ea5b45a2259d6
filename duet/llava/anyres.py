"""The token layout of the crops of a LLaVA-NeXT picture (`anyres`, `spatial_unpad`).

The tower sees the whole picture (the base crop), and the enlarged picture cut into tiles. The placeholders are the base
crop's patches, row by row, then the rows of the grid formed by all tiles, each row followed by a newline token. The
enlarged picture keeps its proportions, so the tiles have padding at two opposite sides; patches of padding have no
placeholder ("unpadding"), and methods do not see them.

Sizes are `(height, width)`, as in transformers; the original uses `(width, height)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, unpad_image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@dataclass(frozen=True)
class Crop:
    """The part of a crop that is left after unpadding: a rectangle of its patches.

    Attributes:
        number: index among the crops of the picture; 0 is the base crop.
        rows, columns: ranges in the crop's own grid.
        first: index of the upper left patch's placeholder in the picture.
        stride: placeholders from one row to the next.
        offset: for a tile, row and column of its upper left patch in the grid of all tiles.
    """

    number: int
    rows: range
    columns: range
    first: int
    stride: int
    offset: tuple[int, int] = (0, 0)

    @property
    def size(self) -> tuple[int, int]:
        """Remaining rows and columns."""
        return len(self.rows), len(self.columns)

    def patches(self, side: int) -> Tensor:
        """`[N]` indices of the patches in a crop of `side x side`, row by row."""
        return _raster(self.rows.start * side + self.columns.start, self.size, side)

    def slots(self) -> Tensor:
        """`[N]` indices of their placeholders in the picture."""
        return _raster(self.first, self.size, self.stride)


@dataclass(frozen=True)
class Picture:
    """The token layout of a picture.

    Attributes:
        count: crops that go through the tower, including those that are all padding.
        crops: the crops that have tokens, base crop first, tiles row by row.
        newlines: placeholders of the newline tokens.
        size: total number of placeholders.
    """

    count: int
    crops: tuple[Crop, ...]
    newlines: range
    size: int


@lru_cache(maxsize=1024)
def lay_out(image_size: tuple[int, int], pinpoints: tuple[tuple[int, int], ...], crop_size: int, side: int) -> Picture:
    """The layout of a picture in the stock model.

    Args:
        image_size: height and width of the picture in pixels.
        pinpoints: possible heights and widths of the enlarged picture (`image_grid_pinpoints`).
        crop_size: side of a crop in pixels.
        side: side of a crop in patches.
    """
    high, wide = get_anyres_image_grid_shape(image_size, list(pinpoints), crop_size)
    grid = torch.arange(high * side * wide * side).view(1, high * side, wide * side)
    left = unpad_image(grid, image_size)[0]
    height, width = left.shape
    top, start = divmod(int(left[0, 0]), wide * side) if left.numel() else (0, 0)
    base, stride = side * side, width + 1
    crops = [_whole(side)]
    for number in range(high * wide):
        row, column = divmod(number, wide)
        rows = _overlap(row * side, side, top, height)
        columns = _overlap(column * side, side, start, width)
        if rows and columns:
            y, x = row * side + rows.start - top, column * side + columns.start - start
            crops.append(Crop(number + 1, rows, columns, base + y * stride + x, stride, (y, x)))
    size = base + height * stride
    return Picture(1 + high * wide, tuple(crops), range(base + width, size, stride), size)


def base_alone(side: int) -> Picture:
    """The layout of a picture with one crop: its patches and one newline."""
    base = side * side
    return Picture(1, (_whole(side),), range(base, base + 1), base + 1)


def _whole(side: int) -> Crop:
    return Crop(0, range(side), range(side), 0, side)


def _raster(first: int, size: tuple[int, int], stride: int) -> Tensor:
    """Indices of a rectangle's cells, row by row, in a grid with rows of `stride` cells."""
    return (first + stride * torch.arange(size[0])[:, None] + torch.arange(size[1])).flatten()


def _overlap(start: int, length: int, from_: int, count: int) -> range:
    """The rows of a tile that are inside the picture, counted from the tile's first row."""
    return range(max(from_ - start, 0), min(from_ + count - start, length))


@dataclass(frozen=True)
class Group:
    """All crops of a call with the same number of remaining rows and columns: `P` crops of `N` patches.

    Attributes:
        grid: rows and columns.
        pictures: `[P]` long, the picture of each crop.
        tiles: `[P]` long, its index in the picture, 0 for the base crop.
        crops: `[P]` long, its index among all crops that go through the tower.
        patches: `[P, N]` long, the remaining patches of the crop.
        slots: `[P, N]` long, indices of their placeholders in the picture.
    """

    grid: tuple[int, int]
    pictures: Tensor
    tiles: Tensor
    crops: Tensor
    patches: Tensor
    slots: Tensor


def group_crops(pictures: Sequence[Picture], side: int) -> tuple[list[Group], list[list[tuple[int, int]]]]:
    """Group the crops of all pictures by size.

    Returns:
        the groups, and for each picture the `(group, index)` of each crop.
    """
    found: dict[tuple[int, int], list[tuple[int, Crop]]] = {}
    places: list[list[tuple[int, int]]] = []
    for number, picture in enumerate(pictures):
        places.append([])
        for crop in picture.crops:
            members = found.setdefault(crop.size, [])
            places[-1].append((list(found).index(crop.size), len(members)))
            members.append((number, crop))
    starts = [0, *accumulate(picture.count for picture in pictures)]
    groups = [
        Group(
            grid=grid,
            pictures=torch.tensor([number for number, _ in members]),
            tiles=torch.tensor([crop.number for _, crop in members]),
            crops=torch.tensor([starts[number] + crop.number for number, crop in members]),
            patches=torch.stack([crop.patches(side) for _, crop in members]),
            slots=torch.stack([crop.slots() for _, crop in members]),
        )
        for grid, members in found.items()
    ]
    return groups, places
