"""Units of a prompt that are shown together: a picture, its tiles, the frames of a video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from math import ceil
from typing import TYPE_CHECKING, Any

from PIL import Image

from duet.report.canvas import SIDE, Canvas, make_canvas

if TYPE_CHECKING:
    from duet.types import Clip, Region

#: Between the frames of a sheet, as a share of their width.
GUTTER = 0.04

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Spot:
    """A unit on a panel.

    Attributes:
        canvas: the model's view of it.
        steps: content of each panel: a `Kept` per reduction, or numbers over its patches.
        shift: upper left corner of its picture on the panel.
        caption: written into its corner.
    """

    canvas: Canvas
    steps: Sequence[Any]
    shift: tuple[float, float] = (0, 0)
    caption: str = ""

    @property
    def frame(self) -> Box:
        """Left, top, right, bottom on the panel."""
        left, top, right, bottom = self.canvas.frame
        x, y = self.shift
        return left + x, top + y, right + x, bottom + y


@dataclass(frozen=True)
class View:
    """A row of the figure.

    Attributes:
        title, about: two lines above the first panel.
        spots: its units, all with the same panels.
    """

    title: str
    about: str
    spots: Sequence[Spot]

    @property
    def frame(self) -> Box:
        """Left, top, right, bottom of the view, in pixels of the original."""
        lefts, tops, rights, bottoms = zip(*(spot.frame for spot in self.spots), strict=True)
        return min(lefts), min(tops), max(rights), max(bottoms)


def make_views(media: Sequence[Any], regions: Sequence[Region], steps: Sequence[Sequence[Any]]) -> list[View]:
    """The views of a prompt, in order.

    Args:
        media: pictures and `Clip`s of the prompt.
        regions: of each unit.
        steps: content of each panel, for each unit.
    """
    views = []
    pairs = zip(regions, steps, strict=True)
    for number, units in groupby(pairs, key=lambda pair: pair[0].medium):
        medium, members = media[number], list(units)
        name = f" {number + 1}" if len(media) > 1 else ""
        if isinstance(medium, Image.Image):
            views += [_picture(f"picture{name}", medium, layer) for layer in _layers(members)]
        else:
            views.append(_sheet(f"video{name}", medium, members))
    return views


def _layers(members: Sequence[tuple[Region, Sequence[Any]]]) -> list[list[tuple[Region, Sequence[Any]]]]:
    """Groups units of a picture that do not overlap: its tiles, but not the tiles with the whole picture."""
    layers: list[list[tuple[Region, Sequence[Any]]]] = []
    for member in members:
        free = (layer for layer in layers if not any(_overlap(member[0].box, other.box) for other, _ in layer))
        layer = next(free, None)
        if layer is None:
            layers.append([member])
        else:
            layer.append(member)
    return layers


def _overlap(one: Box, other: Box) -> bool:
    """Whether two boxes share more than an edge, up to rounding."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    return across > 1e-3 and down > 1e-3


def _picture(name: str, picture: Image.Image, members: Sequence[tuple[Region, Sequence[Any]]]) -> View:
    spots = [Spot(make_canvas(picture, region), steps) for region, steps in members]
    first = members[0][0]
    size = f"{picture.width} x {picture.height} pixels"
    if len(members) == 1:
        return View(f"{name}, {first.caption or 'as the model sees it'}", f"{size}, {_grid(first)}", spots)
    patches = sum(region.patches for region, _ in members)
    return View(f"{name}, {len(members)} tiles", f"{size}, {patches} patches", spots)


def _sheet(name: str, clip: Clip, members: Sequence[tuple[Region, Sequence[Any]]]) -> View:
    """The frames in rows."""
    pictures = [Image.fromarray(clip.frames[region.frame or 0]) for region, _ in members]
    columns = _columns(len(members), pictures[0].width / pictures[0].height)
    spots = []
    for number, (picture, (region, steps)) in enumerate(zip(pictures, members, strict=True)):
        canvas = make_canvas(picture, region, max(SIDE // columns, 4 * max(region.grid)))
        left, top, right, bottom = canvas.frame
        row, column = divmod(number, columns)
        gutter = GUTTER * (right - left)
        shift = column * (right - left + gutter) - left, row * (bottom - top + gutter) - top
        spots.append(Spot(canvas, steps, shift, region.caption))
    height, width = clip.frames.shape[1:3]
    grid = _grid(members[0][0])
    alone = len(clip.frames) == len(members)
    about = f"{width} x {height} pixels, {grid} each" if alone else f"{grid} per two frames, the first is shown"
    return View(f"{name}, {len(clip.frames)} frames", about, spots)


def _columns(count: int, aspect: float) -> int:
    """Number of columns with which frames of `aspect` (width / height) are largest in a square."""
    return max(range(1, count + 1), key=lambda columns: min(1 / columns, aspect / ceil(count / columns)))


def _grid(region: Region) -> str:
    rows, columns = region.grid
    return f"{columns} x {rows} patches"
