"""One figure of what compression did to a question: patches kept by each reduction, scores, voting words, answers.

Per picture: the picture, then a panel per reduction (kept patches clear, merged ones tinted by their contextual token,
the others dimmed) and under each drop inside the language model the scores that decided it. `duet viz` makes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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

#: Inches.
PANEL, GAP, MARGIN, HEAD, TITLE, BAR, LEGEND, TEXT = 3.1, 0.22, 0.3, 0.72, 0.5, 0.45, 0.72, 2.4
DPI = 160
SCORES = colormaps["cividis"]
EDGE = "0.25"


@dataclass(frozen=True)
class View:
    """One picture of the prompt and what each reduction left of it."""

    canvas: Canvas
    steps: Sequence[Kept]


def draw(title: str, subtitle: str, views: Sequence[View], paragraphs: Sequence[Paragraph]) -> Figure:
    """Draw the figure.

    Args:
        title, subtitle: two lines over everything.
        views: one per picture, all with the same reductions.
        paragraphs: question and answers, drawn under the first picture.

    Returns:
        a figure that `savefig` writes in the size that it is laid out for.
    """
    page = _Page(views)
    figure = page.figure
    page.heading(title, 0.38, size=14, weight="bold")
    page.heading(subtitle, 0.62, size=11, color=EDGE)
    for view, (top, panel, below) in zip(views, page.rows, strict=True):
        _show_picture(page.axes(0, top + TITLE, PANEL, panel), view.canvas)
        colours = _colours(view)
        for number, step in enumerate(view.steps, start=1):
            _show_kept(page.axes(number, top + TITLE, PANEL, panel), view.canvas, step, colours)
            if step.scores is not None:
                place = top + TITLE + panel
                bar = page.axes(number, place + TITLE + panel + 0.1, PANEL, 0.1)
                _show_scores(page.axes(number, place + TITLE, PANEL, panel), bar, view.canvas, step)
        if view is views[0]:
            unscored = 1 + sum(step.scores is None for step in view.steps)
            width = unscored * PANEL + (unscored - 1) * GAP
            write(page.axes(0, top + TITLE + panel + 0.25, width, below - LEGEND - 0.25), paragraphs)
            _show_legend(page.axes(0, top + TITLE + panel + below - LEGEND, width, LEGEND), views)
    return figure


class _Page:
    """Places in inches from the upper left corner."""

    def __init__(self, views: Sequence[View]) -> None:
        columns = 1 + len(views[0].steps)
        self.width = 2 * MARGIN + columns * PANEL + (columns - 1) * GAP
        scored = any(step.scores is not None for step in views[0].steps)
        self.rows: list[tuple[float, float, float]] = []
        top = HEAD
        for number, view in enumerate(views):
            left, upper, right, lower = view.canvas.frame
            panel = PANEL * (lower - upper) / (right - left)
            below = TITLE + panel + BAR if scored else 0.0
            below = max(below, TEXT) if number == 0 else below
            self.rows.append((top, panel, below))
            top += TITLE + panel + below + GAP
        self.height = top
        self.figure = Figure(figsize=(self.width, self.height), dpi=DPI, facecolor="white")

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


def _colours(view: View) -> np.ndarray:
    """Colours of the contextual tokens, the same at every reduction."""
    return cluster_colours(view.steps[0].cluster, view.canvas.side) if view.steps else PALETTE


def _show_picture(axes: Axes, canvas: Canvas) -> None:
    _show(axes, canvas, canvas.square)
    width, height = canvas.picture.size
    _title(axes, "what the model sees", f"{width} x {height} pixels, {canvas.side} x {canvas.side} patches")


def _show_kept(axes: Axes, canvas: Canvas, step: Kept, colours: np.ndarray) -> None:
    _show(axes, canvas, paint(canvas, step.clear, step.cluster, colours))
    scale, corner = _patch_scale(canvas), np.array(canvas.box[:2])
    around, _ = borders(np.where(step.clear, 0, -1), canvas.side, inset=0)
    axes.add_collection(LineCollection(around * scale + corner, colors=EDGE, linewidths=0.7))
    segments, owners = borders(step.cluster, canvas.side)
    axes.add_collection(LineCollection(segments * scale + corner, colors=colours[owners], linewidths=1.1))
    at = np.stack([step.anchors % canvas.side, step.anchors // canvas.side], axis=1) + 0.5
    dot = (0.3 * 72 * PANEL * canvas.side**-1 * (canvas.box[2] - canvas.box[0]) / _frame_width(canvas)) ** 2
    x, y = (at * scale + corner).T
    axes.scatter(x, y, s=dot, color="white", edgecolors="black", linewidths=0.6)
    place = f"behind layer {step.boundary}" if step.boundary else "stage 1"
    _title(axes, f"{place}: {step.before} → {step.left} tokens", _contents(step))


def _contents(step: Kept) -> str:
    parts = ["CLS"] if step.cls else []
    parts += [
        f"{count} {what}" for count, what in ((step.clear.sum(), "patches"), (len(step.anchors), "merged")) if count
    ]
    return " + ".join(parts) if parts else "only the text goes on"


def _show_scores(axes: Axes, bar: Axes, canvas: Canvas, step: Kept) -> None:
    assert step.scores is not None
    scored = ~np.isnan(step.scores)
    values = step.scores[scored] if scored.any() else np.zeros(1)
    # a few very large scores would leave all others in one colour
    low, high = float(values.min()), float(np.quantile(values, 0.98))
    scale = Normalize(low, high)
    colours = SCORES(scale(np.nan_to_num(step.scores)))[:, :3]
    pixels = 0.85 * canvas.over(colours) + 0.15 * canvas.square
    _show(axes, canvas, np.where(canvas.over(scored)[..., None], pixels, dim(canvas.square)))
    _title(axes, f"scores behind layer {step.boundary}", "of each token that was left before the drop")
    axes.figure.colorbar(ScalarMappable(scale, SCORES), cax=bar, orientation="horizontal", extend="max")
    bar.set_xticks([low, high], [f"{low:.2g}", f"{high:.2g}"], fontsize=8)
    bar.tick_params(length=2)
    least, most = bar.get_xticklabels()
    least.set_horizontalalignment("left")
    most.set_horizontalalignment("right")


def _show(axes: Axes, canvas: Canvas, pixels: np.ndarray) -> None:
    """The painted square where it lies in the picture; what the model did not see of the picture is dimmed."""
    left, top, right, bottom = canvas.box
    width, height = canvas.picture.size
    outside = dim(np.asarray(canvas.picture, dtype=float) / 255)
    axes.imshow(outside, extent=(0, width, height, 0), interpolation="antialiased")
    axes.imshow(np.clip(pixels, 0, 1), extent=(left, right, bottom, top), interpolation="antialiased")
    frame = canvas.frame
    axes.set(xlim=(frame[0], frame[2]), ylim=(frame[3], frame[1]), xticks=[], yticks=[], aspect="equal")
    axes.spines[:].set(color="0.6", linewidth=0.6)


def _patch_scale(canvas: Canvas) -> float:
    """Pixels of the original along a side of a patch."""
    return (canvas.box[2] - canvas.box[0]) / canvas.side


def _frame_width(canvas: Canvas) -> float:
    return canvas.frame[2] - canvas.frame[0]


def _title(axes: Axes, first: str, second: str) -> None:
    axes.annotate(
        first, (0, 1), (0, 17), xycoords="axes fraction", textcoords="offset points", fontsize=10.5, weight="bold"
    )
    axes.annotate(
        second, (0, 1), (0, 5), xycoords="axes fraction", textcoords="offset points", fontsize=9, color="0.35"
    )


def _show_legend(axes: Axes, views: Sequence[View]) -> None:
    steps = [step for view in views for step in view.steps]
    handles = [Patch(facecolor="white", edgecolor=EDGE, label="clear: left as a token of its own")]
    if any(len(step.anchors) for step in steps):
        label = "tinted: merged into a contextual token (dot: the patch that stands for it)"
        handles.append(Patch(facecolor=PALETTE[0], edgecolor="none", label=label))
    if any((~step.clear & (step.cluster < 0)).any() for step in steps):
        handles.append(Patch(facecolor=(PAPER - 0.12,) * 3, edgecolor="none", label="grey: gone"))
    axes.axis("off")
    axes.legend(handles=handles, loc="lower left", fontsize=8.5, frameon=False, borderpad=0, borderaxespad=0)
