"""The sheet of methods: all of them with their counts and answers, those that cannot run named."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from duet.report.canvas import dim, make_canvas
from duet.report.fates import Fate
from duet.report.method_sheet import DIFFERS, Entry, blend, draw_methods
from duet.report.views import make_views
from duet.types import Region

PICTURE = Image.new("RGB", (60, 40), (200, 40, 40))
EVERY = Fate(np.ones(6), np.zeros(6, dtype=int), np.full(6, -1), np.zeros(0, dtype=int))
SOME = Fate(
    np.array([1, 0.5, 0, 0, 1, 1]), np.array([1, 0, -1, -1, -1, -1]), np.array([-1, -1, -1, -1, 0, 0]), np.array([4])
)
MISSING = [("cdpruner", "needs CLIP's text tower, which is not there; " * 6), ("hired", "method hired needs CLS")]


def entries(count: int) -> list[Entry]:
    found = [Entry("none", (), [6], [], 6.0, "red")]
    for number in range(count - 1):
        stages = ((1,), (2,), (1, 2))[3 * number // count]
        tokens = [6, 3] if stages != (1, 2) else [6, 4, 2]
        boundaries = {(1,): [0], (2,): [2], (1, 2): [0, 2]}[stages]
        found.append(Entry(f"method{number}", stages, tokens, boundaries, 3.0, "red" if number % 2 else "blue"))
    return found


def sheet(count: int, missing: list[tuple[str, str]], pictures: int = 1) -> Figure:
    regions = [Region(number, (0, 0, 60, 40), (2, 3)) for number in range(pictures)]
    views = make_views([PICTURE] * pictures, regions, [[EVERY, *[SOME] * (count - 1)]] * pictures)
    return draw_methods("many methods", "“is it red?”", views, entries(count), missing, 4)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


@pytest.mark.parametrize(("count", "pictures"), [(2, 1), (7, 2), (20, 1)])
def test_every_method_has_its_pictures_counts_and_answer(count: int, pictures: int) -> None:
    figure = sheet(count, MISSING, pictures)
    found = texts(figure)
    for entry in entries(count):
        assert found.count(entry.name) == 1
    assert found.count("6 tokens in all layers") == 1
    assert found.count("6 → 3, mean 3.0") + found.count("6 → 4 → 2, mean 3.0") == count - 1
    assert len([axes for axes in figure.axes if axes.images]) == count * pictures
    wrong = [text for text in figure.texts if text.get_text() == "blue"]
    assert len(wrong) == count // 2 and all(text.get_color() == DIFFERS for text in wrong)
    for name, _ in MISSING:
        assert any(text.startswith(f"{name} cannot run here: needs") for text in found)


@pytest.mark.parametrize("count", [2, 8, 31])
def test_nothing_overlaps_and_all_is_on_the_page(count: int) -> None:
    figure = sheet(count, MISSING)
    FigureCanvasAgg(figure).draw()
    places = [axes.get_position() for axes in figure.axes]
    for number, one in enumerate(places):
        assert one.x0 >= 0 and one.y0 >= 0 and one.x1 <= 1 and one.y1 <= 1
        for other in places[number + 1 :]:
            assert one.x1 <= other.x0 or other.x1 <= one.x0 or one.y1 <= other.y0 or other.y1 <= one.y0
    boxes = [text.get_window_extent() for text in figure.texts]
    for number, one in enumerate(boxes):
        assert one.x0 >= 0 and one.y0 >= 0 and one.x1 <= figure.bbox.x1 and one.y1 <= figure.bbox.y1
        assert not any(one.overlaps(other) for other in boxes[number + 1 :])


def test_stairs_go_down_at_the_boundaries() -> None:
    figure = sheet(20, [])
    stairs = [axes for axes in figure.axes if axes.patches and not axes.images]
    (last,) = (patch.get_data().values for patch in stairs[19].patches)
    assert last.tolist() == [4, 4, 2, 2]
    assert stairs[0].patches[0].get_data().values.tolist() == [6, 6, 6, 6]
    assert {axes.get_ylim() for axes in stairs} == {stairs[0].get_ylim()}


def test_counts_of_many_drops_are_cut() -> None:
    one = Entry("x", (2,), [100, 16, 13, 11, 9, 8], [1, 2, 3, 4, 5], 22.2, "red")
    regions = [Region(0, (0, 0, 60, 40), (2, 3))]
    views = make_views([PICTURE], regions, [[EVERY, SOME]])
    assert "100 → 16 → 13 → … → 8, mean 22.2" in texts(draw_methods("a", "b", views, [entries(2)[0], one], [], 6))


def test_patches_are_as_clear_as_they_last() -> None:
    canvas = make_canvas(Image.new("RGB", (30, 20), (255, 0, 0)), Region(0, (0, 0, 30, 20), (2, 3)), 30)
    painted = blend(canvas, SOME, np.array([(0.0, 0.0, 1.0)]))
    faint = dim(canvas.seen)[0, 0]
    whole, half, gone, merged = painted[5, 5], painted[5, 15], painted[5, 25], painted[15, 15]
    np.testing.assert_allclose(whole, (1, 0, 0))
    np.testing.assert_allclose(gone, faint)
    assert faint[0] < half[0] < 1 and 0 < half[1] < faint[1]
    assert merged[2] > 0.4 and merged[0] > 0.4
