"""One figure of what compression did to a question: patches kept by each reduction, scores, voting words, answers.

A row per view (a picture, its tiles, the frames of a video): what the model sees, then a panel per reduction (kept
patches clear, merged ones tinted by their contextual token, the others dimmed), and under each drop inside the language
model the scores that decided it. `duet viz` makes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from duet.report.canvas import PALETTE, PAPER, borders, cluster_colours, dim, paint
from duet.report.textblock import Paragraph, write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from duet.report.canvas import Canvas
    from duet.report.kept import Kept
    from duet.report.views import Spot, View

#: Inches.
PANEL, GAP, MARGIN, HEAD, TITLE, BAR, LEGEND, TEXT = 3.1, 0.22, 0.3, 0.72, 0.5, 0.45, 0.72, 2.4
#: Height of a panel at most, for tall pictures.
TALLEST = 1.5 * PANEL
#: Dots per inch, fewer where the page would be longer than so many.
DPI, LONGEST = 160, 8000
SCORES = colormaps["cividis"]
EDGE = "0.25"


def draw(title: str, subtitle: str, views: Sequence[View], paragraphs: Sequence[Paragraph]) -> Figure:
    """Draw the figure.

    Args:
        title, subtitle: two lines over everything.
        views: all with the same reductions.
        paragraphs: question and answers, drawn under the first view's picture.

    Returns:
        a figure that `savefig` writes in the size that it is laid out for.
    """
    page = _Page(views)
    figure = page.figure
    page.heading(title, 0.38, size=14, weight="bold")
    page.heading(subtitle, 0.62, size=11, color=EDGE)
    scored = [step.scores is not None for step in views[0].spots[0].steps]
    for view, (top, panel, below) in zip(views, page.rows, strict=True):
        _show_given(page.axes(0, top + TITLE, PANEL, panel), view)
        for number, has_scores in enumerate(scored):
            _show_kept(page.axes(number + 1, top + TITLE, PANEL, panel), view, number)
            if has_scores:
                place = top + TITLE + panel
                bar = page.axes(number + 1, place + TITLE + panel + 0.1, PANEL, 0.1)
                _show_scores(page.axes(number + 1, place + TITLE, PANEL, panel), bar, view, number)
        if view is views[0]:
            unscored = 1 + scored.count(False)
            width = unscored * PANEL + (unscored - 1) * GAP
            write(page.axes(0, top + TITLE + panel + 0.25, width, below - LEGEND - 0.25), paragraphs)
            _show_legend(page.axes(0, top + TITLE + panel + below - LEGEND, width, LEGEND), views)
    return figure


class _Page:
    """Places in inches from the upper left corner."""

    def __init__(self, views: Sequence[View]) -> None:
        steps = views[0].spots[0].steps
        columns = 1 + len(steps)
        self.width = 2 * MARGIN + columns * PANEL + (columns - 1) * GAP
        scored = any(step.scores is not None for step in steps)
        self.rows: list[tuple[float, float, float]] = []
        top = HEAD
        for number, view in enumerate(views):
            left, upper, right, lower = view.frame
            panel = min(PANEL * (lower - upper) / (right - left), TALLEST)
            below = TITLE + panel + BAR if scored else 0.0
            below = max(below, TEXT) if number == 0 else below
            self.rows.append((top, panel, below))
            top += TITLE + panel + below + GAP
        self.height = top
        dpi = min(DPI, LONGEST / max(self.width, self.height))
        self.figure = Figure(figsize=(self.width, self.height), dpi=dpi, facecolor="white")

    def x(self, column: int) -> float:
        """Left edge of a column as a share of the width."""
        return (MARGIN + column * (PANEL + GAP)) / self.width

    def heading(self, text: str, below: float, size: float, **style: Any) -> None:
        """A line whose foot is `below` the upper edge, smaller if it is too long for the page."""
        written = self.figure.text(self.x(0), 1 - below / self.height, text, fontsize=size, **style)
        room = (self.width - 2 * MARGIN) * self.figure.dpi / written.get_window_extent().width
        written.set_fontsize(size * min(1.0, room))

    def axes(self, column: int, top: float, width: float, height: float) -> Axes:
        """Axes at a place."""
        box = (self.x(column), 1 - (top + height) / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(box)


def _show_given(axes: Axes, view: View) -> None:
    _show(axes, view, [spot.canvas.seen for spot in view.spots])
    _title(axes, view.title, view.about)


def _show_kept(axes: Axes, view: View, number: int) -> None:
    """What the reduction `number` left: clear, tinted by cluster, or dimmed."""
    colours = [cluster_colours(spot.steps[0].cluster, spot.canvas.grid) for spot in view.spots]
    steps = [spot.steps[number] for spot in view.spots]
    painted = zip(view.spots, steps, colours, strict=True)
    _show(axes, view, [paint(spot.canvas, step.clear, step.cluster, colour) for spot, step, colour in painted])
    inches = _inches_per_pixel(axes, view)
    for spot, step, colour in zip(view.spots, steps, colours, strict=True):
        _outline(axes, spot, step, colour, inches)
    before, left = (sum(getattr(step, name) for step in steps) for name in ("before", "left"))
    place, what = (f"behind layer {steps[0].boundary}", "") if steps[0].boundary else ("stage 1", " patches")
    _title(axes, f"{place}: {before}{what} → {left} tokens", _contents(steps))


def _outline(axes: Axes, spot: Spot, step: Kept, colours: np.ndarray, inches: float) -> None:
    """Lines around clear patches and clusters, and a dot on the patch that stands for a cluster."""
    canvas, (rows, columns) = spot.canvas, spot.canvas.grid
    scale = np.array(canvas.patch)
    corner = np.array(canvas.box[:2]) + spot.shift
    points = 72 * inches * scale.min()
    around, _ = borders(np.where(step.clear, 0, -1), (rows, columns), inset=0)
    axes.add_collection(LineCollection(around * scale + corner, colors=EDGE, linewidths=min(0.7, 0.1 * points)))
    segments, owners = borders(step.cluster, (rows, columns))
    lines = LineCollection(segments * scale + corner, colors=colours[owners], linewidths=min(1.1, 0.15 * points))
    axes.add_collection(lines)
    at = np.stack([step.anchors % columns, step.anchors // columns], axis=1) + 0.5
    x, y = (at * scale + corner).T
    width = min(0.6, 0.08 * points)
    axes.scatter(x, y, s=(0.3 * points) ** 2, color="white", edgecolors="black", linewidths=width)


def _contents(steps: Sequence[Kept]) -> str:
    counts = (
        (sum(step.cls for step in steps), "CLS"),
        (sum(int(step.clear.sum()) for step in steps), "patches"),
        (sum(len(step.anchors) for step in steps), "merged"),
    )
    parts = [what if (count, what) == (1, "CLS") else f"{count} {what}" for count, what in counts if count]
    return " + ".join(parts) if parts else "none of them goes on"


def _show_scores(axes: Axes, bar: Axes, view: View, number: int) -> None:
    scores = [spot.steps[number].scores for spot in view.spots]
    known = np.concatenate([one[~np.isnan(one)] for one in scores if one is not None])
    values = known if len(known) else np.zeros(1)
    # a few very large scores would leave all others in one colour
    low, high = float(values.min()), float(np.quantile(values, 0.98))
    scale = Normalize(low, high)
    _show(axes, view, [_heat(spot.canvas, one, scale) for spot, one in zip(view.spots, scores, strict=True)])
    _title(axes, f"scores behind layer {view.spots[0].steps[number].boundary}", "of each token that was left before")
    axes.figure.colorbar(ScalarMappable(scale, SCORES), cax=bar, orientation="horizontal", extend="max")
    bar.set_xticks([low, high], [f"{low:.2g}", f"{high:.2g}"], fontsize=8)
    bar.tick_params(length=2)
    least, most = bar.get_xticklabels()
    least.set_horizontalalignment("left")
    most.set_horizontalalignment("right")


def _heat(canvas: Canvas, scores: np.ndarray | None, scale: Normalize) -> np.ndarray:
    assert scores is not None
    colours = SCORES(scale(np.nan_to_num(scores)))[:, :3]
    pixels = 0.85 * canvas.over(colours) + 0.15 * canvas.seen
    return np.where(canvas.over(~np.isnan(scores))[..., None], pixels, dim(canvas.seen))


def _show(axes: Axes, view: View, pixels: Sequence[np.ndarray]) -> None:
    """What is painted of each unit where it lies in its picture; what the model did not see of that is dimmed."""
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
        if spot.caption:
            _caption(axes, spot)
    left, top, right, bottom = view.frame
    axes.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[], aspect="equal", anchor="NW")
    axes.spines[:].set(color="0.6", linewidth=0.6)


def _caption(axes: Axes, spot: Spot) -> None:
    left, top, _, _ = spot.frame
    box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8}
    axes.annotate(
        spot.caption, (left, top), (1.5, -1.5), textcoords="offset points", fontsize=6, va="top", bbox=box, zorder=3
    )


def _inches_per_pixel(axes: Axes, view: View) -> float:
    """Of the page, per pixel of the original."""
    left, top, right, bottom = view.frame
    place, figure = axes.get_position(), axes.get_figure(root=True)
    assert figure is not None
    width, height = place.width * figure.get_figwidth(), place.height * figure.get_figheight()
    return min(width / (right - left), height / (bottom - top))


def _title(axes: Axes, first: str, second: str) -> None:
    """Two lines over a panel, smaller if they are too long for it."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    # a picture in its proportions may leave some of the panel's width free
    room = axes.get_position(original=True).width * figure.bbox.width
    for text, above, size, style in ((first, 17, 10.5, {"weight": "bold"}), (second, 5, 9, {"color": "0.35"})):
        place: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", **style}
        written = axes.annotate(text, (0, 1), (0, above), fontsize=size, **place)
        written.set_fontsize(size * min(1.0, room / written.get_window_extent().width))


def _show_legend(axes: Axes, views: Sequence[View]) -> None:
    steps = [step for view in views for spot in view.spots for step in spot.steps]
    handles = [Patch(facecolor="white", edgecolor=EDGE, label="clear: left as a token of its own")]
    if any(len(step.anchors) for step in steps):
        label = "tinted: merged into a contextual token (dot: the patch that stands for it)"
        handles.append(Patch(facecolor=PALETTE[0], edgecolor="none", label=label))
    if any((~step.clear & (step.cluster < 0)).any() for step in steps):
        handles.append(Patch(facecolor=(PAPER - 0.12,) * 3, edgecolor="none", label="grey: gone"))
    axes.axis("off")
    axes.legend(handles=handles, loc="lower left", fontsize=8.5, frameon=False, borderpad=0, borderaxespad=0)
