"""A sheet of attention maps: a row per decoder layer, a column per word, over the picture (paper, Figures 4 and 6).

Each map has its own scale, from 0 to the value that 2% of its patches exceed. Its title gives the share of the word's
attention on the picture, and the largest share on one patch. Made by `duet viz --layers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize

from duet.report.canvas import dim
from duet.report.panels import EDGE, MARGIN, Page, show, show_given, title
from duet.report.textblock import Paragraph, write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from duet.report.attention import AttentionMap
    from duet.report.canvas import Canvas
    from duet.report.views import View

#: Inches: of a map, of the original picture, between maps, for the name of a layer, for titles, for words and numbers.
MAP, GIVEN, GAP, SIDE, HEAD, TITLE, WORD, NUMBERS = 1.72, 2.7, 0.14, 0.34, 0.78, 0.5, 0.24, 0.22
#: Between bands of words, and between views.
BAND, BELOW = 0.28, 0.3
#: Largest height of a map, as a multiple of its width; height for question, answer and scale.
TALLEST, TEXT, BAR = 1.5, 1.75, 0.5
#: Words side by side.
ACROSS = 6
#: Of a word over its maps.
LETTERS = 17
#: From nothing to the most, over a picture that is turned light grey.
HEAT = LinearSegmentedColormap.from_list("heat", ["#ffffff", "#fdd9a8", "#fc8d59", "#cf2b1d", "#700014"])
QUANTILE = 0.98


def draw_attention(
    heading: str,
    subtitle: str,
    views: Sequence[View],
    maps: Sequence[Sequence[AttentionMap]],
    paragraphs: Sequence[Paragraph],
) -> Figure:
    """Draw the sheet.

    Args:
        heading, subtitle: two lines at the top.
        views: pictures, tiles, videos; the panels of each unit are its maps, layer by layer and word by word.
        maps: `[layer][word]`, what they are.
        paragraphs: question and answer, drawn under the first picture.
    """
    sheet = _Sheet(views, len(maps), len(maps[0]), _room(paragraphs))
    page = sheet.page
    page.heading(heading, 0.38, size=14, weight="bold")
    page.heading(subtitle, 0.62, size=10.5, color=EDGE)
    for view, (top, given, height) in zip(views, sheet.places, strict=True):
        picture = page.axes(MARGIN, top + TITLE, GIVEN, given)
        show_given(picture, view)
        title(picture, view.title, view.about)
        _show_maps(sheet, view, maps, top + TITLE - NUMBERS, height)
        if view is views[0]:
            foot = top + TITLE + given
            write(page.axes(MARGIN, foot + 0.22, GIVEN, sheet.text - 0.22), paragraphs)
            _show_scale(page, foot + sheet.text + 0.05)
    return page.figure


def _room(paragraphs: Sequence[Paragraph]) -> float:
    """Inches for the text: more for a long question."""
    letters = sum(len(word) for paragraph in paragraphs for word, _ in paragraph.words)
    return TEXT + 0.19 * max(0, letters - 90) / 38


class _Sheet:
    """The layout.

    Attributes:
        page: its size.
        places: of each view: upper edge, height of the original picture, height of a map.
        bands: indices of the words next to each other.
        text: height of question and answer.
    """

    def __init__(self, views: Sequence[View], layers: int, words: int, text: float) -> None:
        self.text = text
        count = -(-words // ACROSS)
        across = -(-words // count)  # bands of equal length
        self.bands = [range(start, min(start + across, words)) for start in range(0, words, across)]
        self.places = []
        top = HEAD
        for number, view in enumerate(views):
            left, upper, right, lower = view.frame
            shape = min((lower - upper) / (right - left), TALLEST)
            given, height = GIVEN * shape, MAP * shape
            self.places.append((top, given, height))
            under = text + BAR if number == 0 else 0.0
            maps = len(self.bands) * (WORD + layers * (height + NUMBERS) + BAND) - BAND
            top += TITLE + max(given + under, maps - NUMBERS - WORD) + BELOW
        self.left = MARGIN + GIVEN + 0.3 + SIDE
        self.page = Page(self.left + across * (MAP + GAP) - GAP + MARGIN, top)


def _show_maps(sheet: _Sheet, view: View, maps: Sequence[Sequence[AttentionMap]], top: float, height: float) -> None:
    for band in sheet.bands:
        for row, layer in enumerate(maps):
            edge = top + row * (height + NUMBERS) + NUMBERS
            page, number = sheet.page, layer[0].layer
            page.figure.text(
                (sheet.left - 0.1) / page.width,
                1 - (edge + height / 2) / page.height,
                f"layer {number}",
                rotation=90, ha="right", va="center", fontsize=10, weight="bold",
            )  # fmt: skip
            for column, word in enumerate(band):
                left = sheet.left + column * (MAP + GAP)
                axes = page.axes(left, edge, MAP, height)
                numbers = _show_map(axes, view, row * len(layer) + word)
                page.line(numbers, left, edge - 0.05, MAP, 7.5, color="0.35")
                if row == 0:
                    page.line(shorten(layer[word].looker.label), left, edge - NUMBERS, MAP, 10.5, weight="bold")
        top += WORD + len(maps) * (height + NUMBERS) + BAND


def shorten(label: str) -> str:
    """The label, shortened."""
    return label if len(label) <= LETTERS else f"{label[: LETTERS - 1].rstrip()}…"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%" if share >= 0.0995 else f"{100 * share:.1f}%"


def _show_map(axes: Axes, view: View, panel: int) -> str:
    """Draw a map; returns its caption."""
    values = [spot.steps[panel] for spot in view.spots]
    known = np.concatenate([one[~np.isnan(one)] for one in values])
    known = known if len(known) else np.zeros(1)
    most = float(np.quantile(known, QUANTILE))
    show(axes, view, [heat(spot.canvas, spot.steps[panel], most) for spot in view.spots], captions=False)
    return f"{_percent(float(known.sum()))} here, peak {_percent(float(known.max()))}"


def heat(canvas: Canvas, values: np.ndarray, most: float) -> np.ndarray:
    """A picture in grey under the colours of its patches.

    Args:
        canvas: the unit.
        values: `[N]`, of the patches; NaN for none.
        most: value of the strongest colour.
    """
    scaled = np.nan_to_num(values / most if most > 0 else np.zeros_like(values)).clip(0, 1)
    # the brightest channel, stretched: blue on dark has almost no luminance
    light = canvas.seen.max(-1)
    light = (light - light.min()) / max(np.ptp(light), 1e-6)
    # a product: the picture shows through as brightness, in any colour
    pixels = canvas.over(HEAT(scaled)[:, :3]) * (0.72 + 0.28 * light[..., None])
    return np.where(canvas.over(~np.isnan(values))[..., None], pixels, dim(canvas.seen))


def _show_scale(page: Page, top: float) -> None:
    bar = page.axes(MARGIN, top, GIVEN, 0.1)
    page.figure.colorbar(ScalarMappable(Normalize(0, 1), HEAT), cax=bar, orientation="horizontal")
    bar.set_xticks([0, 1], ["no attention", f"{100 * QUANTILE:.0f}% of the patches get less"], fontsize=8)
    bar.tick_params(length=2)
    least, most = bar.get_xticklabels()
    least.set_horizontalalignment("left")
    most.set_horizontalalignment("right")
