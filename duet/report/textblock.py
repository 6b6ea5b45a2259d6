"""Text in a figure: words, some of them marked, broken into lines, as large as the block allows.

write(axes, [Paragraph("question", [("Is", True), (" it", False), (" dark", True), ("?", False)])])
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matplotlib.patches import Rectangle

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text

#: Point sizes to try until the text fits.
SIZES = (12, 11, 10, 9, 8, 7, 6, 5)
LINE = 1.5
MARK = "#ffd97a"


@dataclass(frozen=True)
class Paragraph:
    """A small grey label and the words below it.

    Attributes:
        label: heading.
        words: each with its leading space or newline, and whether it is marked.
        bold: weight of all words.
    """

    label: str
    words: Sequence[tuple[str, bool]]
    bold: bool = False


def plain(text: str) -> list[tuple[str, bool]]:
    """The words of a text, none of them marked."""
    return [(f" {word}", False) for word in text.split()]


def write(axes: Axes, paragraphs: Sequence[Paragraph]) -> None:
    """Fill axes with paragraphs, from the top, in the largest of `SIZES` that fits, else the smallest up to the end."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    box = axes.get_position()
    width, height = box.width * figure.get_figwidth(), box.height * figure.get_figheight()
    axes.set(xlim=(0, width), ylim=(-height, 0))
    axes.axis("off")
    for size in SIZES:
        pen = _Pen(axes, width, size, limit=height)
        for paragraph in paragraphs:
            pen.paragraph(paragraph)
        if size == SIZES[-1] or pen.depth <= height:
            return
        for artist in [*axes.texts, *axes.patches]:
            artist.remove()


class _Pen:
    """Sets word after word; one unit of the axes is an inch. Stops if the text gets longer than `limit`."""

    def __init__(self, axes: Axes, width: float, size: float, limit: float) -> None:
        self.axes, self.width, self.size, self.limit = axes, width, size, limit
        self.line = LINE * size / 72
        self.blank = 0.3 * size / 72
        self.x, self.depth = 0.0, 0.0

    def paragraph(self, paragraph: Paragraph) -> None:
        """Label, words, and some space after them."""
        self._put(paragraph.label, fontsize=0.8 * self.size, color="0.4")
        self._new_line()
        for word, marked in paragraph.words:
            if self.depth > self.limit:
                return
            if "\n" in word[:1] and self.x > 0:
                self._new_line()
            elif word[:1].isspace() and self.x > 0:
                self.x += self.blank
            weight = "bold" if paragraph.bold else "normal"
            for piece in self._pieces(word.strip(), fontsize=self.size, weight=weight):
                wide = self._put(piece, fontsize=self.size, weight=weight)
                if marked:
                    self._mark(wide)
        self._new_line()
        self.depth += 0.4 * self.line

    def _mark(self, wide: float) -> None:
        """Colour behind the last word; marks of neighbours are joined."""
        left, high = self.x - wide - 0.5 * self.blank, 0.92 * self.line
        place = (left, -self.depth - 0.82 * self.line)
        self.axes.add_patch(Rectangle(place, wide + self.blank, high, facecolor=MARK, edgecolor="none", zorder=0))

    def _put(self, text: str, **style: Any) -> float:
        # "$" would start a formula
        artist = self.axes.text(self.x, -self.depth, text.replace("$", r"\$"), va="top", **style)
        wide = self._width(artist)
        if self.x > 0 and self.x + wide > self.width:
            self._new_line()
            artist.set_position((self.x, -self.depth))
        self.x += wide
        return wide

    def _pieces(self, text: str, **style: Any) -> Iterator[str]:
        """The word, split if it is wider than a line: a long URL, a language without spaces."""
        artist = self.axes.text(0, 0, text.replace("$", r"\$"), **style)
        wide = self._width(artist)
        artist.remove()
        if wide <= self.width or len(text) == 1:
            yield text
        else:
            cut = max(1, int(len(text) * self.width / wide))
            yield from self._pieces(text[:cut], **style)
            yield from self._pieces(text[cut:], **style)

    def _width(self, artist: Text) -> float:
        figure = self.axes.get_figure(root=True)
        assert figure is not None
        return artist.get_window_extent().width / figure.dpi

    def _new_line(self) -> None:
        self.x, self.depth = 0.0, self.depth + self.line
