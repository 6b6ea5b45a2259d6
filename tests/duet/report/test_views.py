"""What is shown together: tiles on their picture, the picture as a whole apart from them, frames on a sheet."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from duet.report.kept import Kept
from duet.report.views import View, make_views
from duet.types import Clip, Region

PICTURE = Image.new("RGB", (120, 80), (200, 40, 40))


def kept(region: Region) -> list[Kept]:
    count = region.grid[0] * region.grid[1]
    nothing = np.zeros(count, dtype=bool)
    return [Kept(0, count, 0, False, nothing, np.full(count, -1), np.zeros(0, dtype=int))]


def views(media: list, regions: list[Region]) -> list[View]:
    return make_views(media, regions, [kept(region) for region in regions])


def clip(frames: int, height: int, width: int) -> Clip:
    return Clip(np.zeros((frames, height, width, 3), np.uint8), tuple(range(0, 10 * frames, 10)), 10 * frames, 5.0)


def test_a_picture() -> None:
    (view,) = views([PICTURE], [Region(0, (20, 0, 100, 80), (4, 4))])
    assert (view.title, view.about) == ("picture, as the model sees it", "120 x 80 pixels, 4 x 4 patches")
    assert view.frame == (0, 0, 120, 80)


def test_tiles_lie_on_their_picture_and_the_base_crop_is_apart() -> None:
    """Tiles touch, by a rounding error they overlap; those of the second picture are another view."""
    base = Region(0, (0, 0, 120, 80), (4, 4), "base crop")
    tiles = [Region(0, (60 * x, 40 * y, 60 * x + 60.0000001, 40 * y + 40), (3, 4)) for y in (0, 1) for x in (0, 1)]
    second = [Region(1, region.box, region.grid, region.caption) for region in (base, *tiles)]
    found = views([PICTURE, PICTURE.copy()], [base, *tiles, *second])
    assert [len(view.spots) for view in found] == [1, 4, 1, 4]
    assert [view.title for view in found] == [
        f"picture {n}, {what}" for n in (1, 2) for what in ("base crop", "4 tiles")
    ]
    assert found[1].about == "120 x 80 pixels, 48 patches"
    assert found[1].frame == pytest.approx((0, 0, 120, 80))


@pytest.mark.parametrize(
    ("size", "count", "columns"), [((90, 160), 8, 2), ((360, 204), 8, 4), ((50, 50), 9, 3), ((50, 50), 1, 1)]
)
def test_frames_of_a_sheet_do_not_overlap_and_fill_it(size: tuple[int, int], count: int, columns: int) -> None:
    height, width = size
    regions = [Region(0, (0, 0, width, height), (3, 3), f"{number} s", number) for number in range(count)]
    (view,) = views([clip(count, *size)], regions)
    frames = [spot.frame for spot in view.spots]
    assert sum(frame[1] == 0 for frame in frames) == columns
    for number, one in enumerate(frames):
        assert (one[2] - one[0], one[3] - one[1]) == pytest.approx((width, height))
        for other in frames[:number]:
            assert one[0] >= other[2] or other[0] >= one[2] or one[1] >= other[3] or other[1] >= one[3]
    assert [spot.caption for spot in view.spots] == [f"{number} s" for number in range(count)]
    assert view.title == f"video, {count} frames" and view.about == f"{width} x {height} pixels, 3 x 3 patches each"


def test_a_padded_frame_keeps_its_padding() -> None:
    regions = [Region(0, (0, -35, 160, 125), (4, 4), "", number) for number in range(2)]
    (view,) = views([clip(2, 90, 160)], regions)
    assert [spot.frame[3] - spot.frame[1] for spot in view.spots] == pytest.approx([160, 160])
    assert view.spots[0].frame[1] == 0
    assert view.spots[0].canvas.frame == (0, -35, 160, 125)


def test_two_frames_per_unit_are_said() -> None:
    regions = [Region(0, (0, 0, 20, 10), (2, 4), "", number) for number in (0, 2)]
    (view,) = views([clip(4, 10, 20)], regions)
    assert (view.title, view.about) == ("video, 4 frames", "4 x 2 patches per two frames, the first is shown")
