"""A sheet of methods: what each keeps of the same pictures for the same question, at the same average.

Below each picture, a staircase shows the visual tokens that enter each layer of the language model; at equal averages
all staircases have the same area. Made by `duet viz --methods`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.patches import Patch

from duet.report.canvas import PALETTE, PAPER, cluster_colours, dim
from duet.report.panels import EDGE, FAINT, MARGIN, Page, outline, show, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from duet.report.canvas import Canvas
    from duet.report.fates import Fate
    from duet.report.views import View

#: Inches: of a picture, between columns, between rows, at the top.
PANEL, GAP, BETWEEN, HEAD = 1.55, 0.2, 0.16, 0.86
#: Of the name of a group, the lines above a picture, the staircase, the answer, between pictures of a method.
GROUP, TITLE, STAIRS, ANSWER, NEXT = 0.36, 0.42, 0.34, 0.26, 0.08
#: Height of the lines at the bottom, and letters per inch.
LINE, LETTERS = 0.19, 16
TALLEST = 1.5
#: Methods side by side: as many of these as take the least room.
COLUMNS = (6, 7, 8, 9)
#: Letters of an answer at most.
ANSWERED = 26
STEP, DIFFERS = "#5b7ba6", "#b3361e"
#: Clearness of a patch that only lasts for the first layers.
FAINTEST = 0.2
GROUPS = {
    (): "all visual tokens",
    (1,): "before the language model",
    (2,): "inside the language model",
    (1, 2): "before and inside",
}


@dataclass(frozen=True)
class Entry:
    """A method that answered.

    Attributes:
        name: as given.
        stages: of the method.
        tokens: visual tokens of the prompt, then after each reduction.
        boundaries: number of layers before each of these.
        average: mean over the layers.
        answer: its text.
    """

    name: str
    stages: tuple[int, ...]
    tokens: Sequence[int]
    boundaries: Sequence[int]
    average: float
    answer: str


def draw_methods(
    heading: str, subtitle: str, views: Sequence[View], entries: Sequence[Entry], missing: Sequence[tuple[str, str]],
    depth: int,
) -> Figure:  # fmt: skip
    """Draw the sheet.

    Args:
        heading, subtitle: two lines at the top.
        views: pictures, tiles, videos; the panels of each unit are its `Fate`s, method by method.
        entries: the methods in the same order; answers that differ from the first are coloured.
        missing: methods that could not run here, and why.
        depth: decoder layers.
    """
    across = _across(entries)
    foot = _foot(missing, across)
    sheet = _Sheet(views, entries, across, len(foot))
    page = sheet.page
    page.heading(heading, 0.38, size=14, weight="bold")
    page.heading(subtitle, 0.62, size=10.5, color=EDGE)
    for name, left, top in sheet.groups:
        page.line(name, left, top + 0.2, page.width - MARGIN - left, 10, color=FAINT)
    for number, (entry, (left, top)) in enumerate(zip(entries, sheet.cells, strict=True)):
        _show_cell(sheet, views, number, entry, left, top)
        under = top + TITLE + sum(sheet.heights) + NEXT * len(sheet.heights)
        _show_stairs(page.axes(left, under, PANEL, STAIRS - 0.08), entry, depth)
        differs = entry.answer != entries[0].answer
        answer = textwrap.shorten(entry.answer, ANSWERED, placeholder="…") or "(nothing)"
        page.line(answer, left, under + STAIRS + 0.12, PANEL, 9.5, weight="bold", color=DIFFERS if differs else "black")
    _show_legend(page.axes(MARGIN, sheet.foot, page.width - 2 * MARGIN, sheet.legend), depth, sheet.keys)
    under = sheet.foot + sheet.legend + LINE
    for number, line in enumerate(foot):
        page.line(line, MARGIN, under + number * LINE, page.width - 2 * MARGIN, 8.5, color=FAINT)
    return page.figure


def _across(entries: Sequence[Entry]) -> int:
    """Methods next to each other; every group begins a row, the first entry belongs to the first group."""
    sizes = [sum(entry.stages == group for entry in entries[1:]) for group in GROUPS]
    sizes = [size for size in sizes if size]
    sizes[0] += 1
    room = {columns: columns * sum(-(-size // columns) for size in sizes) for columns in COLUMNS}
    return min(min(COLUMNS, key=lambda columns: (room[columns], -columns)), max(sizes))


def _foot(missing: Sequence[tuple[str, str]], columns: int) -> list[str]:
    """Methods that are not drawn, a paragraph each."""
    width = int(LETTERS * (columns * (PANEL + GAP) - GAP))
    reasons = [(name, " ".join(reason.split()).removeprefix(f"method {name} ")) for name, reason in missing]
    lines = [f"{name} cannot run here: {reason}" for name, reason in reasons]
    return [piece for line in lines for piece in textwrap.wrap(line, width, subsequent_indent="   ")]


class _Sheet:
    """The layout.

    Attributes:
        page: its size.
        heights: of the picture in each view.
        cells: left and upper edge of each method.
        groups: names of groups, and their left and upper edges.
        foot, legend: upper edge of the legend, and its height.
        keys: colours that it explains in a line.
    """

    def __init__(self, views: Sequence[View], entries: Sequence[Entry], across: int, lines: int) -> None:
        self.heights = []
        for view in views:
            left, upper, right, lower = view.frame
            self.heights.append(PANEL * min((lower - upper) / (right - left), TALLEST))
        height = TITLE + sum(self.heights) + NEXT * len(views) + STAIRS + ANSWER + BETWEEN
        self.cells: list[tuple[float, float]] = []
        self.groups: list[tuple[str, float, float]] = []
        top, column, stages = HEAD, 0, entries[0].stages
        for entry in entries:
            # the first one, with all tokens, is in the first row of the others
            begins = entry.stages != stages
            if column == across or (begins and len(self.cells) > 1):
                top, column = top + height + (GROUP if begins else 0), 0
            if begins or not self.cells:
                top += 0 if self.cells else GROUP
                self.groups.append((GROUPS[entry.stages], MARGIN + column * (PANEL + GAP), top - GROUP))
                stages = entry.stages
            self.cells.append((MARGIN + column * (PANEL + GAP), top))
            column += 1
        self.foot = top + height + 0.1
        width = max(2 * MARGIN + across * (PANEL + GAP) - GAP, 7.0)
        self.keys = 5 if width > 14 else 3 if width > 9 else 2
        self.legend = -(-5 // self.keys) * LINE + 0.1
        self.page = Page(width, self.foot + self.legend + (lines + 0.5) * LINE + MARGIN)


def _show_cell(sheet: _Sheet, views: Sequence[View], number: int, entry: Entry, left: float, top: float) -> None:
    top += TITLE
    for view, height in zip(views, sheet.heights, strict=True):
        axes = sheet.page.axes(left, top, PANEL, height)
        fates = [spot.steps[number] for spot in view.spots]
        colours = [cluster_colours(one.cluster, spot.canvas.grid) for spot, one in zip(view.spots, fates, strict=True)]
        painted = [blend(spot.canvas, *pair) for spot, *pair in zip(view.spots, fates, colours, strict=True)]
        show(axes, view, painted, captions=False)
        if entry.stages:
            for spot, one, colour in zip(view.spots, fates, colours, strict=True):
                outline(axes, view, spot, one.level, one, colour)
        if view is views[0]:
            title(axes, entry.name, _counts(entry), (10, 7.5))
        top += height + NEXT


def _counts(entry: Entry) -> str:
    if not entry.stages:
        return f"{entry.tokens[0]} tokens in all layers"
    counts = [*map(str, entry.tokens)]
    if len(counts) > 5:
        counts[3:-1] = ["…"]
    return f"{' → '.join(counts)}, mean {entry.average:.1f}"


def blend(canvas: Canvas, fate: Fate, colours: np.ndarray) -> np.ndarray:
    """Patches clearer the longer they last, merged ones tinted by cluster, the others dimmed.

    Args:
        canvas: the unit.
        fate: of its patches.
        colours: `[C, 3]`, of the clusters.
    """
    merged = fate.cluster >= 0
    tint = np.zeros((len(merged), 3))
    tint[merged] = colours[fate.cluster[merged]]
    pixels = np.where(canvas.over(merged)[..., None], 0.45 * canvas.seen + 0.55 * canvas.over(tint), canvas.seen)
    clear = np.where(fate.lasts > 0, FAINTEST + (1 - FAINTEST) * fate.lasts, 0.0)
    share = canvas.over(clear)[..., None]
    return share * pixels + (1 - share) * dim(canvas.seen)


def _show_stairs(axes: Axes, entry: Entry, depth: int) -> None:
    """Visual tokens that enter each layer, on the same scale for all methods."""
    left = dict(zip(entry.boundaries, entry.tokens[1:], strict=True))
    levels, now = [], entry.tokens[0]
    for layer in range(depth):
        now = left.get(layer, now)
        levels.append(now)
    axes.stairs(levels, range(depth + 1), fill=True, color=STEP, alpha=0.85)
    axes.set(xlim=(0, depth), ylim=(0, 1.04 * entry.tokens[0]), xticks=[], yticks=[])
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set(color="0.6", linewidth=0.6)


def _show_legend(axes: Axes, depth: int, columns: int) -> None:
    handles: list[Any] = [
        Patch(facecolor="white", edgecolor=EDGE, label="kept; clearer if it lasts for more layers"),
        Patch(facecolor=PALETTE[0], edgecolor="none", label="tinted: merged with others of its colour"),
        Patch(facecolor=(PAPER - 0.12,) * 3, edgecolor="none", label="grey: gone"),
        Patch(facecolor=STEP, edgecolor="none", label=f"visual tokens that enter each of the {depth} layers"),
        Patch(facecolor=DIFFERS, edgecolor="none", label="answer differs from the one with all tokens"),
    ]
    axes.axis("off")
    axes.legend(
        handles=handles, loc="upper left", ncols=columns, fontsize=8.5, frameon=False, borderpad=0, borderaxespad=0
    )
