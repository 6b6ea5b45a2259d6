"""What a picture of the small world contains: a few coloured shapes, one word and one number on a 3x3 grid of places.

A `Scene` is drawn from `rng(seed, split, index)` alone, so three values reproduce every picture, and splits
never share a stream. Sizes are in pixels; a picture is 80x80 and the tower's patches are 8x8, so the grid lines
at 0, 24, 56 and 80 fall on patch borders.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

PICTURE = 80
PATCH = 8
SHAPES = ("circle", "square", "triangle", "cross", "ring", "bar")
COLORS = {
    "red": (228, 48, 48),
    "green": (60, 208, 72),
    "blue": (72, 112, 248),
    "yellow": (244, 220, 60),
    "purple": (190, 80, 222),
    "white": (240, 240, 240),
}
SIZES = {"small": 11, "large": 17}
BACKGROUNDS = {"forest": (44, 76, 48), "desert": (112, 94, 62), "sea": (38, 66, 96), "night": (32, 30, 44)}
WORDS = (
    "ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen", "ivy", "jam", "key", "log",
    "map", "nut", "oak", "pig", "rug", "sun", "tea", "urn", "van", "wax", "yak", "zoo",
)  # fmt: skip
PLACES = ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right")
GRID = (0, 24, 56, 80)
COUNT_WEIGHTS = {2: 0.25, 3: 0.35, 4: 0.25, 5: 0.15}


@dataclass(frozen=True)
class Item:
    """One thing in the picture. `place` indexes PLACES; `left`, `top` are the corner of its box, in pixels."""

    kind: str  # "shape", "word" or "number"
    text: str  # the shape's name, the word, or the digit
    color: str
    size: str
    place: int
    left: int
    top: int
    width: int
    height: int

    @property
    def row(self) -> int:
        """Row of the grid, 0 at the top."""
        return self.place // 3

    @property
    def column(self) -> int:
        """Column of the grid, 0 at the left."""
        return self.place % 3

    @property
    def phrase(self) -> str:
        """The words that describe the item in captions: "small red ring", "word sun", "number 7"."""
        return f"{self.size} {self.color} {self.text}" if self.kind == "shape" else f"{self.kind} {self.text}"


@dataclass(frozen=True)
class Scene:
    """The contents of one picture. `items` are in raster order of their places; `noise` seeds the clutter."""

    background: str
    items: tuple[Item, ...]
    noise: int

    @property
    def shapes(self) -> tuple[Item, ...]:
        """The items that are neither word nor number."""
        return tuple(item for item in self.items if item.kind == "shape")

    def only(self, kind: str) -> Item:
        """The single item of this kind ("word" or "number")."""
        return next(item for item in self.items if item.kind == kind)


def rng(seed: int, split: str, index: int) -> np.random.Generator:
    """A separate random stream for each (seed, split, index)."""
    return np.random.default_rng([seed, zlib.crc32(split.encode()), index])


def sample_scene(random: np.random.Generator, weights: dict[int, float] = COUNT_WEIGHTS) -> Scene:
    """Draw one scene: 2 to 5 shapes (or as `weights` says), one word and one digit, each in a different place."""
    count = int(random.choice(list(weights), p=list(weights.values())))
    places = random.permutation(9)[: count + 2]
    wanted = [("word", str(random.choice(WORDS)), 18, 11), ("number", str(random.integers(10)), 12, 16)]
    items = [_place(random, kind, text, "white", "large", int(place), width, height)
             for (kind, text, width, height), place in zip(wanted, places[:2], strict=True)]  # fmt: skip
    for place in places[2:]:
        size = str(random.choice(list(SIZES)))
        shape, color = str(random.choice(SHAPES)), str(random.choice(list(COLORS)))
        items.append(_place(random, "shape", shape, color, size, int(place), SIZES[size], SIZES[size]))
    background = str(random.choice(list(BACKGROUNDS)))
    return Scene(background, tuple(sorted(items, key=lambda item: item.place)), int(random.integers(2**31)))


def _place(
    random: np.random.Generator, kind: str, text: str, color: str, size: str, place: int, width: int, height: int
) -> Item:
    """Put a box of width x height somewhere inside its place of the grid."""
    row, column = divmod(place, 3)
    left = int(random.integers(GRID[column] + 1, GRID[column + 1] - width))
    top = int(random.integers(GRID[row] + 1, GRID[row + 1] - height))
    return Item(kind, text, color, size, place, left, top, width, height)
