"""The figure: a panel per reduction, colours where they belong, words and titles on the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from duet.backbones.regions import seen_box
from duet.report.canvas import make_canvas
from duet.report.heatmaps import TALLEST, draw
from duet.report.kept import Kept
from duet.report.panels import LONGEST
from duet.report.textblock import Paragraph, plain
from duet.report.views import Spot, View
from duet.types import Region

SIDE = 4


def view(size: tuple[int, int] = (64, 48), drops: int = 2, stage1: bool = True) -> View:
    cluster = np.full(SIDE**2, -1)
    cluster[[3, 7]] = 0
    clear = np.arange(SIDE**2) < 3
    steps = [Kept(0, 16, 4, False, clear, cluster, np.array([3]))] if stage1 else []
    nothing, gone = np.zeros(SIDE**2, dtype=bool), np.full(SIDE**2, -1)
    for number in range(drops):
        last = number == drops - 1
        scores = np.where(clear | (cluster >= 0), 0.1 * np.arange(SIDE**2), np.nan)
        left = nothing if last else clear & (np.arange(16) > 0)
        steps.append(Kept(number + 1, 4, int(left.sum()), False, left, gone, np.zeros(0, dtype=int), scores))
    picture = Image.new("RGB", size, (200, 40, 40))
    region = Region(0, seen_box(size, True, 8, 8), (SIDE, SIDE))
    return View("the picture", "4 x 4 patches", [Spot(make_canvas(picture, region), steps)])


def words(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


@pytest.mark.parametrize(("drops", "stage1"), [(2, True), (0, True), (3, False)])
def test_panels_and_titles(drops: int, stage1: bool, tmp_path: Path) -> None:
    paragraphs = [Paragraph("question", [("red", True), ("?", False)]), Paragraph("answer", plain("a circle"))]
    figure = draw("method on model", "16 tokens", [view(drops=drops, stage1=stage1)], paragraphs)
    text = words(figure)
    pictures = [axes for axes in figure.axes if axes.images]
    assert len(pictures) == 1 + stage1 + 2 * drops
    for expected in (
        "method on model",
        "16 tokens",
        "the picture",
        "4 x 4 patches",
        "question",
        "red",
        "circle",
        "grey: gone",
    ):
        assert expected in text
    assert ("stage 1: 16 patches → 4 tokens" in text) == stage1
    assert ("tinted" in text) == stage1
    if drops:
        assert f"after layer {drops}: 4 → 0 tokens" in text and "none is left" in text
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_units_of_a_view_are_counted_together_and_named() -> None:
    (one,) = view(drops=1).spots
    spots = [one, Spot(one.canvas, one.steps, (80, 0), "1.5 s")]
    figure = draw("title", "subtitle", [View("a video", "2 frames", spots)], [])
    text = words(figure)
    assert "stage 1: 32 patches → 8 tokens" in text and "6 patches + 2 merged" in text
    assert text.count("1.5 s") == len([axes for axes in figure.axes if axes.images])


def test_titles_stay_in_their_panels() -> None:
    """Also over a tall picture, which leaves a part of its panel's width free."""
    tall = view(size=(30, 120), drops=1)
    long = View("a name that is much longer than the panel is wide, as it seems", tall.about, tall.spots)
    figure = draw("title", "subtitle", [long], [])
    FigureCanvasAgg(figure).draw()
    panels = [axes for axes in figure.axes if axes.images]
    for axes, right in zip(panels[:2], (panels[1].bbox.x0, panels[2].bbox.x0), strict=True):
        for title in axes.texts:
            assert title.get_window_extent().x1 < right
            assert title.get_fontsize() > 6


def test_pages_stay_small() -> None:
    strip = view(size=(10, 200), drops=1)
    figure = draw("title", "subtitle", [strip] * 12, [])
    assert figure.get_figheight() < 12 * 3 * TALLEST
    assert max(figure.bbox.width, figure.bbox.height) <= LONGEST + 1


def test_every_picture_gets_its_rows() -> None:
    one, two = draw("title", "subtitle", [view()], []), draw("title", "subtitle", [view(), view((48, 96))], [])
    assert len(two.axes) - len(one.axes) == 2 * 3 + 2
    assert two.get_figheight() > one.get_figheight()


def test_a_long_heading_fits() -> None:
    title = "a very long name of a method on a very long name of a model " * 3
    figure = draw(title, "subtitle", [view(drops=0)], [])
    FigureCanvasAgg(figure).draw()
    (heading,) = [text for text in figure.texts if text.get_text() == title]
    assert heading.get_window_extent().x1 <= figure.bbox.x1


def test_kept_patches_are_clear_and_others_grey() -> None:
    figure = draw("title", "subtitle", [view()], [])
    stage1 = [axes for axes in figure.axes if axes.images][1].images[1].get_array()
    assert stage1 is not None
    cell = stage1.shape[0] // SIDE
    middle = np.asarray(stage1)[2 * cell + cell // 2, 2 * cell + cell // 2]
    assert np.ptp(middle) < 1e-6
    top_left = np.asarray(stage1)[cell - 1, cell // 2]
    assert top_left[0] > 0.7 and top_left[1] < 0.3


def test_equal_scores_draw() -> None:
    flat = view()
    for step in flat.spots[0].steps[1:]:
        assert step.scores is not None
        step.scores[~np.isnan(step.scores)] = 0.5
    FigureCanvasAgg(draw("title", "subtitle", [flat], [])).draw()
