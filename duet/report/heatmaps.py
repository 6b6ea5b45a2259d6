"""One figure of how a question was compressed: patches kept by each reduction, scores, voting words, answers.

One row per view (a picture, its tiles, the frames of a video): the model's view, then a panel per reduction (kept
patches clear, merged ones tinted by contextual token, the others dimmed), and below each drop inside the language model
its scores. Made by `duet viz`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from duet.report.canvas import PALETTE, PAPER, cluster_colours, dim, paint
from duet.report.panels import EDGE, MARGIN, Page, outline, show, show_given, title
from duet.report.textblock import Paragraph, write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from duet.report.canvas import Canvas
    from duet.report.kept import Kept
    from duet.report.views import View

#: Inches.
PANEL, GAP, HEAD, TITLE, BAR, LEGEND, TEXT = 3.1, 0.22, 0.72, 0.5, 0.45, 0.72, 2.4
#: Largest height of a panel, for tall pictures.
TALLEST = 1.5 * PANEL
SCORES = colormaps["cividis"]


def draw(heading: str, subtitle: str, views: Sequence[View], paragraphs: Sequence[Paragraph]) -> Figure:
    """Draw the figure.

    Args:
        heading, subtitle: two lines at the top.
        views: all with the same reductions.
        paragraphs: question and answers, drawn under the first view's picture.

    Returns:
        a figure that `savefig` writes at its layout size.
    """
    rows = _Rows(views)
    rows.page.heading(heading, 0.38, size=14, weight="bold")
    rows.page.heading(subtitle, 0.62, size=11, color=EDGE)
    scored = [step.scores is not None for step in views[0].spots[0].steps]
    for view, (top, panel, below) in zip(views, rows.places, strict=True):
        given = rows.axes(0, top + TITLE, PANEL, panel)
        show_given(given, view)
        title(given, view.title, view.about)
        for number, has_scores in enumerate(scored):
            _show_kept(rows.axes(number + 1, top + TITLE, PANEL, panel), view, number)
            if has_scores:
                place = top + TITLE + panel
                bar = rows.axes(number + 1, place + TITLE + panel + 0.1, PANEL, 0.1)
                _show_scores(rows.axes(number + 1, place + TITLE, PANEL, panel), bar, view, number)
        if view is views[0]:
            unscored = 1 + scored.count(False)
            width = unscored * PANEL + (unscored - 1) * GAP
            write(rows.axes(0, top + TITLE + panel + 0.25, width, below - LEGEND - 0.25), paragraphs)
            _show_legend(rows.axes(0, top + TITLE + panel + below - LEGEND, width, LEGEND), views)
    return rows.page.figure


class _Rows:
    """The layout of the page.

    Attributes:
        page: its size.
        places: of each view: upper edge, height of a panel, and height below its first row of panels.
    """

    def __init__(self, views: Sequence[View]) -> None:
        steps = views[0].spots[0].steps
        columns = 1 + len(steps)
        scored = any(step.scores is not None for step in steps)
        self.places: list[tuple[float, float, float]] = []
        top = HEAD
        for number, view in enumerate(views):
            left, upper, right, lower = view.frame
            panel = min(PANEL * (lower - upper) / (right - left), TALLEST)
            below = TITLE + panel + BAR if scored else 0.0
            below = max(below, TEXT) if number == 0 else below
            self.places.append((top, panel, below))
            top += TITLE + panel + below + GAP
        self.page = Page(2 * MARGIN + columns * PANEL + (columns - 1) * GAP, top)

    def axes(self, column: int, top: float, width: float, height: float) -> Axes:
        """Axes at a place."""
        return self.page.axes(MARGIN + column * (PANEL + GAP), top, width, height)


def _show_kept(axes: Axes, view: View, number: int) -> None:
    """What is left after reduction `number`: clear, tinted by cluster, or dimmed."""
    colours = [cluster_colours(spot.steps[0].cluster, spot.canvas.grid) for spot in view.spots]
    steps = [spot.steps[number] for spot in view.spots]
    painted = zip(view.spots, steps, colours, strict=True)
    show(axes, view, [paint(spot.canvas, step.clear, step.cluster, colour) for spot, step, colour in painted])
    for spot, step, colour in zip(view.spots, steps, colours, strict=True):
        outline(axes, view, spot, np.where(step.clear, 0, -1), step, colour)
    before, left = (sum(getattr(step, name) for step in steps) for name in ("before", "left"))
    place, what = (f"after layer {steps[0].boundary}", "") if steps[0].boundary else ("stage 1", " patches")
    title(axes, f"{place}: {before}{what} → {left} tokens", _contents(steps))


def _contents(steps: Sequence[Kept]) -> str:
    counts = (
        (sum(step.cls for step in steps), "CLS"),
        (sum(int(step.clear.sum()) for step in steps), "patches"),
        (sum(len(step.anchors) for step in steps), "merged"),
    )
    parts = [what if (count, what) == (1, "CLS") else f"{count} {what}" for count, what in counts if count]
    return " + ".join(parts) if parts else "none is left"


def _show_scores(axes: Axes, bar: Axes, view: View, number: int) -> None:
    scores = [spot.steps[number].scores for spot in view.spots]
    known = np.concatenate([one[~np.isnan(one)] for one in scores if one is not None])
    values = known if len(known) else np.zeros(1)
    # a few very large scores would make all others one colour
    low, high = float(values.min()), float(np.quantile(values, 0.98))
    scale = Normalize(low, high)
    show(axes, view, [_heat(spot.canvas, one, scale) for spot, one in zip(view.spots, scores, strict=True)])
    title(axes, f"scores after layer {view.spots[0].steps[number].boundary}", "of each token left before it")
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


def _show_legend(axes: Axes, views: Sequence[View]) -> None:
    steps = [step for view in views for spot in view.spots for step in spot.steps]
    handles = [Patch(facecolor="white", edgecolor=EDGE, label="clear: kept as its own token")]
    if any(len(step.anchors) for step in steps):
        label = "tinted: merged into a contextual token (dot: its anchor patch)"
        handles.append(Patch(facecolor=PALETTE[0], edgecolor="none", label=label))
    if any((~step.clear & (step.cluster < 0)).any() for step in steps):
        handles.append(Patch(facecolor=(PAPER - 0.12,) * 3, edgecolor="none", label="grey: gone"))
    axes.axis("off")
    axes.legend(handles=handles, loc="lower left", fontsize=8.5, frameon=False, borderpad=0, borderaxespad=0)
