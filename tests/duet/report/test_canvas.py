"""What a unit shows, against what the image processor really does; painting patch by patch."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from duet.backbones.regions import seen_box
from duet.report.canvas import PALETTE, Canvas, borders, cluster_colours, dim, make_canvas, paint
from duet.types import Region

SIZES = [(80, 80), (120, 80), (60, 100)]
MEAN = (0.5, 0.25, 0.75)


def gradient(size: tuple[int, int]) -> Image.Image:
    """Red grows to the right, green downwards: a pixel says where it is."""
    x, y = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    return Image.fromarray((255 * np.stack([x, y, 0 * x], axis=-1)).astype(np.uint8))


def square(picture: Image.Image, box: tuple[float, float, float, float], side: int = 6) -> Canvas:
    return make_canvas(picture, Region(0, box, (side, side), padding=MEAN))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("padded", "edge"), [(True, 48), (False, 48), (False, 56)])
def test_the_square_is_what_the_processor_makes(size: tuple[int, int], padded: bool, edge: int) -> None:
    processor = LlavaImageProcessorPil(
        do_pad=padded,
        size={"shortest_edge": edge},
        crop_size={"height": 48, "width": 48},
        do_normalize=False,
        image_mean=MEAN,
    )
    picture = gradient(size)
    seen = np.transpose(processor(picture, return_tensors="np")["pixel_values"][0], (1, 2, 0))
    canvas = square(picture, seen_box(size, padded, edge, 48))
    ours = np.asarray(Image.fromarray((255 * canvas.seen).astype(np.uint8)).resize((48, 48))) / 255
    inner = slice(4, -4)
    assert np.abs(ours - seen)[inner, inner].mean() < 0.02


@pytest.mark.parametrize("size", SIZES)
def test_the_frame_holds_picture_and_square(size: tuple[int, int]) -> None:
    for padded in (True, False):
        canvas = square(gradient(size), seen_box(size, padded, 48, 48))
        left, top, right, bottom = canvas.frame
        assert left <= min(0, canvas.box[0]) and right >= max(size[0], canvas.box[2])
        assert top <= min(0, canvas.box[1]) and bottom >= max(size[1], canvas.box[3])
        assert canvas.seen.shape == (6 * canvas.cell, 6 * canvas.cell, 3)


def test_paint() -> None:
    canvas = square(gradient((40, 40)), (0, 0, 40, 40), 2)
    clear, cluster = np.array([True, False, False, False]), np.array([-1, 0, -1, -1])
    painted = paint(canvas, clear, cluster, PALETTE[:1])
    cell = canvas.cell
    assert np.array_equal(painted[:cell, :cell], canvas.seen[:cell, :cell])
    assert np.allclose(painted[:cell, cell:], 0.45 * canvas.seen[:cell, cell:] + 0.55 * PALETTE[0])
    assert np.array_equal(painted[cell:], dim(canvas.seen)[cell:])


def test_a_part_of_a_picture_on_a_grid_that_is_no_square() -> None:
    """The right half of the picture in 2 x 4 patches: red from the middle on, patches of 5 x 15 pixels."""
    canvas = make_canvas(gradient((40, 30)), Region(0, (20, 0, 40, 30), (2, 4)), pixels=80)
    assert (canvas.cell, canvas.seen.shape, canvas.patch) == (20, (40, 80, 3), (5, 15))
    assert canvas.frame == (0, 0, 40, 30)
    assert canvas.seen[0, 0, 0] == pytest.approx(0.5, abs=0.03) and canvas.seen[-1, -1, 1] == pytest.approx(1, abs=0.03)
    over = canvas.over(np.arange(8))
    assert over.shape == (40, 80) and over[39, 0] == 4 and over[0, 79] == 3


def test_dimmed_pixels_are_grey_and_faint() -> None:
    grey = dim(np.random.default_rng(0).random((5, 7, 3)))
    assert np.allclose(grey, grey[..., :1])
    assert grey.min() > 0.7 and grey.max() < 1


def test_neighbours_have_other_colours() -> None:
    rows, columns = np.indices((6, 6))
    cluster = (rows // 2 * 3 + columns // 2).ravel()
    colours = cluster_colours(cluster, (6, 6))
    grid = cluster.reshape(6, 6)
    for one, other in ((grid[:-1], grid[1:]), (grid[:, :-1], grid[:, 1:]), (grid[:-1, :-1], grid[1:, 1:])):
        for a, b in zip(one.ravel(), other.ravel(), strict=True):
            assert a == b or not np.array_equal(colours[a], colours[b])
    assert len(cluster_colours(np.full(36, -1), (6, 6))) == 0


def test_more_neighbours_than_colours_still_works() -> None:
    colours = cluster_colours(np.arange(100), (10, 10))
    assert colours.shape == (100, 3)
    assert len(np.unique(colours, axis=0)) == len(PALETTE)


def test_borders_go_around_each_cluster() -> None:
    cluster = np.array([0, 0, -1, 1, -1, -1, -1, -1, -1])
    segments, owners = borders(cluster, (3, 3), inset=0)
    assert sorted(owners.tolist()) == [0] * 6 + [1] * 4
    own = segments[owners == 1]
    assert own.reshape(-1, 2).min(0).tolist() == [0, 1] and own.reshape(-1, 2).max(0).tolist() == [1, 2]
    assert borders(np.full(10, -1), (2, 5))[0].shape == (0, 2, 2)
