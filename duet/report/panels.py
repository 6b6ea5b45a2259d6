"""The parts of the sheets of `duet viz`: a page laid out in inches, pictures on panels, titles above them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from duet.report.canvas import borders, dim

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from duet.report.fates import Fate
    from duet.report.kept import Kept
    from duet.report.views import Spot, View

#: Inches.
MARGIN = 0.3
#: Dots per inch, and the largest page in pixels.
DPI, LONGEST = 160, 8000
EDGE, FAINT = "0.25", "0.35"


class Page:
    """A figure in inches; places are measured from its upper left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        dpi = min(DPI, LONGEST / max(width, height))
        self.figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white")
        FigureCanvasAgg(self.figure)  # without it every measured word would get, and keep, a page of pixels of its own

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes at a place."""
        box = (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(box)

    def heading(self, text: str, below: float, size: float, **style: Any) -> None:
        """A line of text `below` the upper edge, smaller if it is too long for the page."""
        self.line(text, MARGIN, below, self.width - 2 * MARGIN, size, **style)

    def line(self, text: str, left: float, below: float, room: float, size: float, **style: Any) -> None:
        """A line of text, smaller if it is too long."""
        place = left / self.width, 1 - below / self.height
        # "$" would start a formula
        written = self.figure.text(*place, text.replace("$", r"\$"), fontsize=size, **style)
        wide = written.get_window_extent().width / self.figure.dpi
        written.set_fontsize(size * min(1.0, room / wide))


def show(axes: Axes, view: View, pixels: Sequence[np.ndarray], captions: bool = True) -> None:
    """Paint each unit at its place in the picture; the rest of the picture is dimmed."""
    shown = set()
    for spot in view.spots:
        picture, (x, y) = spot.canvas.picture, spot.shift
        if (id(picture), spot.shift) not in shown:
            outside = dim(np.asarray(picture, dtype=float) / 255)
            extent = (x, x + picture.width, y + picture.height, y)
            axes.imshow(outside, extent=extent, interpolation="antialiased")
            shown.add((id(picture), spot.shift))
    for spot, painted in zip(view.spots, pixels, strict=True):
        (left, top, right, bottom), (x, y) = spot.canvas.box, spot.shift
        extent = (left + x, right + x, bottom + y, top + y)
        axes.imshow(np.clip(painted, 0, 1), extent=extent, interpolation="antialiased")
        if spot.caption and captions:
            _caption(axes, spot)
    left, top, right, bottom = view.frame
    axes.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[], aspect="equal", anchor="NW")
    axes.spines[:].set(color="0.6", linewidth=0.6)


def show_given(axes: Axes, view: View) -> None:
    """The model's view, unchanged."""
    show(axes, view, [spot.canvas.seen for spot in view.spots])


def _caption(axes: Axes, spot: Spot) -> None:
    left, top, _, _ = spot.frame
    box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8}
    axes.annotate(
        spot.caption, (left, top), (1.5, -1.5), textcoords="offset points", fontsize=6, va="top", bbox=box, zorder=3
    )


def outline(axes: Axes, view: View, spot: Spot, clear: np.ndarray, merged: Kept | Fate, colours: np.ndarray) -> None:
    """Lines around clear patches and clusters, and a dot on the anchor patch of a cluster.

    Args:
        axes: of the view.
        view: of the spot.
        spot: the unit.
        clear: `[N]` int, the area of a patch; -1 for none.
        merged: clusters of the unit.
        colours: `[C, 3]`, of its clusters.
    """
    canvas, (rows, columns) = spot.canvas, spot.canvas.grid
    scale = np.array(canvas.patch)
    corner = np.array(canvas.box[:2]) + spot.shift
    points = 72 * _inches_per_pixel(axes, view) * scale.min()
    around, _ = borders(clear, (rows, columns), inset=0)
    axes.add_collection(LineCollection(around * scale + corner, colors=EDGE, linewidths=min(0.7, 0.1 * points)))
    segments, owners = borders(merged.cluster, (rows, columns))
    lines = LineCollection(segments * scale + corner, colors=colours[owners], linewidths=min(1.1, 0.15 * points))
    axes.add_collection(lines)
    at = np.stack([merged.anchors % columns, merged.anchors // columns], axis=1) + 0.5
    x, y = (at * scale + corner).T
    width = min(0.6, 0.08 * points)
    axes.scatter(x, y, s=(0.3 * points) ** 2, color="white", edgecolors="black", linewidths=width)


def _inches_per_pixel(axes: Axes, view: View) -> float:
    """Of the page, per pixel of the original."""
    left, top, right, bottom = view.frame
    place, figure = axes.get_position(), axes.get_figure(root=True)
    assert figure is not None
    width, height = place.width * figure.get_figwidth(), place.height * figure.get_figheight()
    return min(width / (right - left), height / (bottom - top))


def title(axes: Axes, first: str, second: str, sizes: tuple[float, float] = (10.5, 9)) -> None:
    """Two lines above a panel, smaller if they are too long for it."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    # a picture may be narrower than its panel
    room = axes.get_position(original=True).width * figure.bbox.width
    lines = ((first, 8 + sizes[1], sizes[0], {"weight": "bold"}), (second, 5, sizes[1], {"color": FAINT}))
    for text, above, size, style in lines:
        place: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", **style}
        written = axes.annotate(text.replace("$", r"\$"), (0, 1), (0, above), fontsize=size, **place)
        wide = written.get_window_extent().width
        written.set_fontsize(size * min(1.0, room / wide) if wide else size)
