"""Text blocks: text stays inside, marked words are marked, and long text gets smaller."""

from __future__ import annotations

import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure

from duet.report.panels import Page
from duet.report.textblock import SIZES, Paragraph, plain, write


def block(*paragraphs: Paragraph) -> Axes:
    figure = Figure(figsize=(4, 3))
    axes = figure.add_axes((0, 0, 1, 1))
    write(axes, paragraphs)
    FigureCanvasAgg(figure).draw()
    return axes


@pytest.mark.parametrize("count", [3, 60])
def test_words_stay_inside(count: int) -> None:
    axes = block(Paragraph("label", plain("several words " * count)))
    for text in axes.texts:
        box = text.get_window_extent()
        assert box.x1 <= axes.bbox.x1 + 1 and box.y0 >= axes.bbox.y0 - 1


def test_a_word_wider_than_the_block_is_cut() -> None:
    word = "igence" * 20
    axes = block(Paragraph("answer", [(word, True)], bold=True))
    pieces = axes.texts[1:]
    assert len(pieces) == len(axes.patches) > 1
    assert "".join(piece.get_text() for piece in pieces) == word
    assert all(piece.get_window_extent().x1 <= axes.bbox.x1 + 1 for piece in pieces)
    depths = [piece.get_position()[1] for piece in pieces]
    assert depths == sorted(set(depths), reverse=True)


def test_much_text_is_small() -> None:
    sizes = [block(Paragraph("", plain("word " * count))).texts[-1].get_fontsize() for count in (5, 120, 500)]
    assert sizes[0] == SIZES[0] > sizes[1] > sizes[2] == SIZES[-1]


def test_marks_lie_under_marked_words_only() -> None:
    axes = block(Paragraph("question", [("Is", False), (" it", True), (" dark", True), ("?", False)]))
    marks = [patch.get_window_extent() for patch in axes.patches]
    assert len(marks) == 2
    under = {
        text.get_text()
        for text in axes.texts
        for mark in marks
        if mark.x0 < text.get_window_extent().x0 < text.get_window_extent().x1 < mark.x1
    }
    assert under == {"it", "dark"}


def test_line_ends_and_blanks() -> None:
    axes = block(Paragraph("", [("one", False), (" two", False), ("three", False), ("\nfour", False)]))
    one, two, three, four = axes.texts[1:]
    assert one.get_position()[1] == two.get_position()[1] > four.get_position()[1]
    assert four.get_position()[0] == 0
    gap = three.get_window_extent().x0 - two.get_window_extent().x1
    assert gap < two.get_window_extent().x0 - one.get_window_extent().x1


def test_dollars_are_no_formula() -> None:
    axes = block(Paragraph("", plain("$5 and $6 _x^y_")))
    assert [text.get_text() for text in axes.texts[1:]] == [r"\$5", "and", r"\$6", "_x^y_"]


def test_a_long_text_costs_no_pages_of_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every measured word once got a renderer as large as the page, which matplotlib kept."""
    made = []
    init = RendererAgg.__init__
    monkeypatch.setattr(RendererAgg, "__init__", lambda self, *given: made.append(given) or init(self, *given))
    page = Page(2, 1)
    axes = page.axes(0.1, 0.1, 1.8, 0.8)
    write(axes, [Paragraph("question", plain("word " * 500))])
    assert len(made) <= 1
    assert 10 < len(axes.texts) < 200  # what is below the page is not set
