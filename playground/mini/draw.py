"""Draws a `Scene` as an 80x80 picture and says which patch shows what.

Background: a dim tint with cluttered low-contrast noise and faint blobs, so most patches look like their neighbours.
Items: flat, bright, small. Text uses Pillow's built-in bitmap font, the digit at twice its size.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .world import BACKGROUNDS, COLORS, PATCH, PICTURE, Item, Scene

IGNORED = -100  # a patch that shows too little of an item to be asked about
COVERED = 6  # pixels of an item that a patch must show to count as showing it
_OVERSAMPLE = 4


@cache
def shape_mask(shape: str, size: int) -> np.ndarray:
    """Coverage of a shape in a size x size box, [size, size] float in 0..1."""
    big = size * _OVERSAMPLE
    image = Image.new("L", (big, big))
    pen = ImageDraw.Draw(image)
    last, third = big - 1, big // 3
    if shape == "circle":
        pen.ellipse((0, 0, last, last), fill=255)
    elif shape == "square":
        pen.rectangle((0, 0, last, last), fill=255)
    elif shape == "triangle":
        pen.polygon([(big // 2, 0), (last, last), (0, last)], fill=255)
    elif shape == "cross":
        pen.rectangle((third, 0, big - third, last), fill=255)
        pen.rectangle((0, third, last, big - third), fill=255)
    elif shape == "ring":
        pen.ellipse((0, 0, last, last), fill=255)
        pen.ellipse((big // 4, big // 4, last - big // 4, last - big // 4), fill=0)
    elif shape == "bar":
        pen.rectangle((0, third, last, big - third), fill=255)
    else:
        raise ValueError(f"unknown shape {shape!r}")
    return np.asarray(image.resize((size, size), Image.Resampling.BOX), dtype=np.float32) / 255


@cache
def text_mask(text: str, width: int, height: int, scale: int) -> np.ndarray:
    """Coverage of a text in Pillow's bitmap font, enlarged `scale` times and centred, [height, width] float in 0..1."""
    glyphs = ImageFont.load_default_imagefont().getmask(text)
    ink = np.asarray(glyphs, dtype=np.float32).reshape(glyphs.size[::-1]) / 255
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].repeat(scale, 0).repeat(scale, 1)
    if ink.shape[0] > height or ink.shape[1] > width:
        raise ValueError(f"{text!r} needs {ink.shape[1]}x{ink.shape[0]} pixels, its box has {width}x{height}")
    mask = np.zeros((height, width), dtype=np.float32)
    top, left = (height - ink.shape[0]) // 2, (width - ink.shape[1]) // 2
    mask[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return mask


def item_mask(item: Item) -> np.ndarray:
    """Coverage of one item inside its box, [height, width]."""
    if item.kind == "shape":
        return shape_mask(item.text, item.width)
    return text_mask(item.text, item.width, item.height, 1 if item.kind == "word" else 2)


def draw(scene: Scene) -> np.ndarray:
    """The picture, uint8 [80, 80, 3]."""
    random = np.random.default_rng(scene.noise)
    canvas = clutter(scene.background, random)
    paint(canvas, scene, random)
    return finished(canvas, random)


def paint(canvas: np.ndarray, scene: Scene, random: np.random.Generator) -> None:
    """Put the items on a background, float [80, 80, 3], in place."""
    for item in scene.items:
        mask = item_mask(item)[..., None]
        color = np.asarray(COLORS[item.color], dtype=np.float32) + random.integers(-10, 11, 3)
        box = canvas[item.top : item.top + item.height, item.left : item.left + item.width]
        box += mask * (color - box)


def finished(canvas: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The picture of a canvas, with a little noise, uint8."""
    canvas = canvas + random.integers(-6, 7, (*canvas.shape[:2], 1))
    return canvas.clip(0, 255).astype(np.uint8)


def noise(scene: Scene) -> np.ndarray:
    """Noise instead of the picture, uint8 [80, 80, 3]: right answers to it are guesses."""
    return np.random.default_rng(scene.noise).integers(0, 256, (PICTURE, PICTURE, 3), dtype=np.uint8)


def patch_labels(scene: Scene) -> np.ndarray:
    """Which item each patch shows, int [100]: an index into `scene.items`, -1 for background, IGNORED for a sliver."""
    side = PICTURE // PATCH
    labels = np.full((side, side), -1)
    for index, item in enumerate(scene.items):
        shown = np.zeros((PICTURE, PICTURE), dtype=np.float32)
        shown[item.top : item.top + item.height, item.left : item.left + item.width] = item_mask(item)
        pixels = shown.reshape(side, PATCH, side, PATCH).sum((1, 3))
        labels[pixels > 0] = IGNORED
        labels[pixels >= COVERED] = index
    return labels.reshape(-1)


def clutter(name: str, random: np.random.Generator) -> np.ndarray:
    """A tinted field with coarse and fine noise and four faint blobs, float [80, 80, 3]."""
    coarse = Image.fromarray(random.integers(0, 255, (9, 9, 3), dtype=np.uint8))
    field = np.asarray(coarse.resize((PICTURE, PICTURE), Image.Resampling.BILINEAR), dtype=np.float32)
    fine = random.integers(-9, 10, (PICTURE // 2, PICTURE // 2, 1)).repeat(2, 0).repeat(2, 1)
    canvas: np.ndarray = np.asarray(BACKGROUNDS[name], dtype=np.float32) + (field - 127) * 0.22 + fine
    for _ in range(4):
        size = int(random.integers(8, 20))
        left, top = random.integers(0, PICTURE - size, 2)
        mask = shape_mask("circle", size)[..., None]
        canvas[top : top + size, left : left + size] += mask * float(random.integers(-22, 23))
    return canvas
