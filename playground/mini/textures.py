"""Backgrounds of the hops world: textures that vary within a picture, brighter than the first world's clutter.

Each kind of scene has its own texture with random direction, scale and strength: strokes (forest), ridges (desert),
waves (sea), stars over haze (night). A gradient across the picture and a random tint lie over it, so patches without a
thing differ from each other, and covering what differs does not by itself find the things.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image

from .draw import item_mask, shape_mask
from .world import BACKGROUNDS, PICTURE, Item


def textured(name: str, random: np.random.Generator) -> np.ndarray:
    """The background of a scene, float [80, 80, 3]."""
    across, down = np.meshgrid(np.arange(PICTURE), np.arange(PICTURE))
    tint = np.asarray(BACKGROUNDS[name], dtype=np.float32) + random.integers(-14, 15, 3)
    texture = TEXTURES[name](random, across, down)
    angle = random.uniform(0, 2 * np.pi)
    gradient = ((across * np.cos(angle) + down * np.sin(angle)) / PICTURE - 0.35) * random.uniform(-36, 36)
    light = (texture * random.uniform(20, 44) + gradient)[..., None]
    canvas: np.ndarray = tint + light * np.asarray([1.0, 0.95, 0.85]) + random.integers(-7, 8, (PICTURE, PICTURE, 1))
    return canvas.clip(4, 168).astype(np.float32)


def halo(canvas: np.ndarray, item: Item) -> None:
    """Darken the pixels of an item and around it, in place, so that it stands out from any texture."""
    spread = _spread(item.kind, item.text, item.width, item.height)
    top, left = item.top - 2, item.left - 2
    high, wide = spread.shape
    rows, columns = slice(max(top, 0), min(top + high, PICTURE)), slice(max(left, 0), min(left + wide, PICTURE))
    inside = spread[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left, None]
    canvas[rows, columns] *= 1 - 0.65 * inside


@cache
def _spread(kind: str, text: str, width: int, height: int) -> np.ndarray:
    """An item's mask with a rim of one pixel, [height + 4, width + 4]."""
    spread = np.pad(item_mask(Item(kind, text, "white", "large", 0, 0, 0, width, height)), 2)
    for axis in (0, 1):
        spread = np.maximum.reduce([np.roll(spread, shift, axis) for shift in (-1, 0, 1)])
    return spread


def _forest(random: np.random.Generator, across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Upright strokes of different widths and lengths, in -1..1."""
    field = np.zeros((PICTURE, PICTURE), dtype=np.float32)
    for _ in range(int(random.integers(18, 34))):
        left, top = int(random.integers(PICTURE)), int(random.integers(-20, PICTURE))
        width, height = int(random.integers(1, 5)), int(random.integers(10, 45))
        field[max(top, 0) : max(top + height, 0), left : left + width] += random.uniform(-1, 1)
    return field.clip(-1.4, 1.4)


def _desert(random: np.random.Generator, across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Slanted ridges that bend, in -1..1."""
    slant, period, phase = random.uniform(-0.9, 0.9), random.uniform(7, 20), random.uniform(0, 6.3)
    bend = np.sin(across / random.uniform(9, 25) + phase) * random.uniform(1, 5)
    return np.sin((down + slant * across + bend) / period * 2 * np.pi) ** 3


def _sea(random: np.random.Generator, across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Two trains of short waves that overlap, in -1..1."""
    first = np.sin(across / random.uniform(2.5, 6) + np.sin(down / random.uniform(2, 5)) * 1.8)
    second = np.sin(down / random.uniform(1.5, 4) + across / random.uniform(8, 30))
    return 0.5 * first + 0.5 * second


def _night(random: np.random.Generator, across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Haze with stars and a pale disc, mostly in -1..1."""
    coarse = Image.fromarray(random.integers(0, 255, (6, 6), dtype=np.uint8))
    field = np.asarray(coarse.resize((PICTURE, PICTURE), Image.Resampling.BILINEAR), dtype=np.float32) / 127 - 1
    size = int(random.integers(8, 22))
    left, top = random.integers(0, PICTURE - size, 2)
    field[top : top + size, left : left + size] += shape_mask("circle", size) * random.uniform(0.5, 1.6)
    rows, columns = random.integers(0, PICTURE, (2, int(random.integers(15, 50))))
    field[rows, columns] += 3
    return field


TEXTURES = {"forest": _forest, "desert": _desert, "sea": _sea, "night": _night}
