"""The sheet: a row per layer, a column per word, all of them on the page and apart."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from duet.report.attention import AttentionMap, Looker
from duet.report.attention_sheet import HEAT, draw_attention, heat, shorten
from duet.report.canvas import make_canvas
from duet.report.textblock import Paragraph, plain
from duet.report.views import make_views
from duet.types import Region

PICTURE = Image.new("RGB", (60, 40), (200, 40, 40))


def sheet(layers: list[int], words: list[str], pictures: int = 1, sizes: tuple[int, int] = (4, 6)) -> Figure:
    values = np.full(sizes[0] * sizes[1], 0.21 / (sizes[0] * sizes[1] - 2))
    values[:2] = [0.21, np.nan]
    maps = [[AttentionMap(layer, Looker(word, (9,)), [values] * pictures) for word in words] for layer in layers]
    regions = [Region(number, (0, 0, 60, 40), sizes) for number in range(pictures)]
    flat = [one for layer in maps for one in layer]
    units = [[one.units[number] for one in flat] for number in range(pictures)]
    views = make_views([PICTURE] * pictures, regions, units)
    return draw_attention("attention", "of words", views, maps, [Paragraph("question", plain("is it red ?"))])


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


@pytest.mark.parametrize(("words", "pictures"), [(1, 1), (6, 1), (9, 2), (14, 1)])
def test_every_word_and_layer_is_there(words: int, pictures: int) -> None:
    names = [f"word{number}" for number in range(words)]
    figure = sheet([2, 8], names, pictures)
    found = texts(figure)
    for name in names:
        assert found.count(name) == pictures
    bands = -(-words // 6)
    assert found.count("layer 2") == found.count("layer 8") == pictures * bands
    assert found.count("42% here, peak 21%") == 2 * words * pictures
    assert len([axes for axes in figure.axes if axes.images]) == pictures * (1 + 2 * words)


def test_nothing_overlaps_and_all_is_on_the_page() -> None:
    figure = sheet([1, 2, 3], ["a word that is longer than its map is wide, by far", *"bcdefgh"], 2)
    FigureCanvasAgg(figure).draw()
    panels = [axes.get_position() for axes in figure.axes if axes.images]
    for number, one in enumerate(panels):
        assert one.x0 >= 0 and one.y0 >= 0 and one.x1 <= 1 and one.y1 <= 1
        for other in panels[number + 1 :]:
            assert one.x1 <= other.x0 or other.x1 <= one.x0 or one.y1 <= other.y0 or other.y1 <= one.y0
    for text in figure.texts:
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1


def test_colours_follow_the_values_and_gaps_are_grey() -> None:
    canvas = make_canvas(Image.new("RGB", (20, 20), (255, 255, 255)), Region(0, (0, 0, 20, 20), (2, 2)), 20)
    painted = heat(canvas, np.array([0.0, 0.1, 0.5, np.nan]), 0.1)
    none, most, above, gap = painted[2, 2], painted[2, 17], painted[17, 2], painted[17, 17]
    np.testing.assert_allclose(none / none[0], np.array(HEAT(0.0)[:3]) / HEAT(0.0)[0])
    np.testing.assert_allclose(most / most[0], np.array(HEAT(1.0)[:3]) / HEAT(1.0)[0], atol=1e-6)
    np.testing.assert_allclose(most, above)
    assert np.ptp(gap) < 1e-9
    assert np.isfinite(heat(canvas, np.zeros(4), 0.0)).all()


def test_long_labels_are_cut() -> None:
    assert shorten("zebra") == "zebra"
    assert shorten("Answer the question using a single word") == "Answer the quest…"
