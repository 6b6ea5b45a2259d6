"""A unit as seen by the model, and patch maps painted over it: pure functions on arrays `[height, width, 3]` in 0..1.

A unit is a picture, a crop or a frame, padded, cut or stretched by the processor. `Canvas` stores it at a
whole number of pixels per patch, with its box in the original picture, so patch maps can be shown in the original
geometry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from duet.types import Region

#: Okabe and Ito's colour-blind safe palette, without black and the yellow that is faint on white.
PALETTE = np.array([(0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (213, 94, 0), (86, 180, 233)]) / 255
PAPER = 0.93
#: Approximate pixels along the longer side.
SIDE = 720


@dataclass(frozen=True)
class Canvas:
    """One unit.

    Attributes:
        picture: the original, RGB.
        seen: `[rows * cell, columns * cell, 3]`, what the model saw, at `cell x cell` pixels per patch.
        box: left, top, right, bottom of it in pixels of the original; outside the original where it was padded.
        grid: rows and columns of patches.
        cell: pixels along a side of a patch.
    """

    picture: Image.Image
    seen: np.ndarray
    box: tuple[float, float, float, float]
    grid: tuple[int, int]
    cell: int

    @property
    def frame(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of the original with the padding around it."""
        width, height = self.picture.size
        left, top, right, bottom = self.box
        return min(left, 0), min(top, 0), max(right, width), max(bottom, height)

    @property
    def patch(self) -> tuple[float, float]:
        """Width and height of a patch in pixels of the original."""
        left, top, right, bottom = self.box
        return (right - left) / self.grid[1], (bottom - top) / self.grid[0]

    def over(self, patches: np.ndarray) -> np.ndarray:
        """`[N, ...]` of patches -> `[rows * cell, columns * cell, ...]` of pixels."""
        grid = patches.reshape(*self.grid, *patches.shape[1:])
        return grid.repeat(self.cell, axis=0).repeat(self.cell, axis=1)


def make_canvas(picture: Image.Image, region: Region, pixels: int = SIDE) -> Canvas:
    """The model's view of a picture, with the padding's colour outside it.

    Args:
        picture: the original, RGB.
        region: of the unit's patches in it.
        pixels: approximate, along the longer side.
    """
    rows, columns = region.grid
    cell = max(1, round(pixels / max(rows, columns)))
    left, top = round(region.box[0]), round(region.box[1])
    size = max(1, round(region.box[2]) - left), max(1, round(region.box[3]) - top)
    whole = Image.new("RGB", size, tuple(int(255 * channel) for channel in region.padding))
    whole.paste(picture, (-left, -top))
    enlarged = max(size) * 3 < max(rows, columns) * cell
    method = Image.Resampling.NEAREST if enlarged else Image.Resampling.LANCZOS
    seen = np.asarray(whole.resize((columns * cell, rows * cell), method), dtype=float) / 255
    return Canvas(picture, seen, region.box, region.grid, cell)


def dim(pixels: np.ndarray) -> np.ndarray:
    """Grey and faint, for dropped patches."""
    grey = pixels @ np.array([0.299, 0.587, 0.114])
    return np.repeat((0.22 * grey + 0.78 * PAPER)[..., None], 3, axis=-1)


def paint(canvas: Canvas, clear: np.ndarray, cluster: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Clear patches unchanged, merged ones tinted by cluster, the others dimmed.

    Args:
        canvas: the unit.
        clear: `[N]` bool.
        cluster: `[N]` int, -1 for none.
        colours: `[C, 3]`, of the clusters.
    """
    merged = cluster >= 0
    tint = np.zeros((len(cluster), 3))
    tint[merged] = colours[cluster[merged]]
    pixels = np.where(canvas.over(clear)[..., None], canvas.seen, dim(canvas.seen))
    mixed = 0.45 * canvas.seen + 0.55 * canvas.over(tint)
    return np.where(canvas.over(merged)[..., None], mixed, pixels)


def cluster_colours(cluster: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """`[C, 3]`: colours of the clusters of a patch map, different for neighbours as far as the palette allows."""
    grid = np.pad(cluster.reshape(shape), 1, constant_values=-1)
    number = np.zeros(cluster.max(initial=-1) + 1, dtype=int)
    used = np.zeros(len(PALETTE), dtype=int)
    for index in range(len(number)):
        touching = {
            int(near)
            for y, x in np.argwhere(grid == index)
            for near in grid[y - 1 : y + 2, x - 1 : x + 2].ravel()
            if 0 <= near < index
        }
        taken = np.bincount([number[near] for near in touching], minlength=len(PALETTE))
        number[index] = np.lexsort((used, taken))[0]
        used[number[index]] += 1
    return PALETTE[number]


def borders(cluster: np.ndarray, shape: tuple[int, int], inset: float = 0.07) -> tuple[np.ndarray, np.ndarray]:
    """Outlines of the clusters of a patch map.

    Returns:
        segments `[M, 2, 2]` of (x, y) in patches, slightly inside their cluster, and the cluster `[M]` of each.
    """
    grid = np.pad(cluster.reshape(shape), 1, constant_values=-1)
    inner = grid[1:-1, 1:-1]
    low, high = inset, 1 - inset
    edges = (
        (grid[:-2, 1:-1], (low, low), (high, low)),
        (grid[2:, 1:-1], (low, high), (high, high)),
        (grid[1:-1, :-2], (low, low), (low, high)),
        (grid[1:-1, 2:], (high, low), (high, high)),
    )
    segments, owners = [np.zeros((0, 2, 2))], [np.zeros(0, dtype=int)]
    for neighbour, start, end in edges:
        at = np.argwhere((inner >= 0) & (neighbour != inner))
        corner = at[:, ::-1].astype(float)
        segments.append(np.stack([corner + start, corner + end], axis=1))
        owners.append(inner[at[:, 0], at[:, 1]])
    return np.concatenate(segments), np.concatenate(owners)
