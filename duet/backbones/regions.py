"""The square of a picture that CLIP's and LLaVA's image processors use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from duet.types import Region

if TYPE_CHECKING:
    from collections.abc import Sequence

    from duet.types import Clip


def square_regions(media: Sequence[Any], image_processor: Any, side: int) -> list[Region]:
    """One region per picture and per frame of a video, in prompt order.

    Args:
        media: PIL pictures and `Clip`s.
        image_processor: of both.
        side: side of the square in patches.
    """
    regions = []
    for number, medium in enumerate(media):
        if hasattr(medium, "frames"):
            clip: Clip = medium
            height, width = clip.frames.shape[1:3]
            for frame, second in enumerate(clip.seconds):
                regions.append(_square(number, (width, height), image_processor, side, f"{second:.1f} s", frame))
        else:
            regions.append(_square(number, medium.size, image_processor, side))
    return regions


def seen_box(size: tuple[int, int], padded: bool, shortest_edge: int, crop: int) -> tuple[float, float, float, float]:
    """The square: left, top, right, bottom in pixels of the original.

    Args:
        size: width and height of the original.
        padded: whether it is padded to a square first.
        shortest_edge: size that the shorter side is resized to.
        crop: side of the square that is then cut out of the middle.
    """
    width, height = size
    side = (max(size) if padded else min(size)) * crop / shortest_edge
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def _square(
    medium: int, size: tuple[int, int], images: Any, side: int, caption: str = "", frame: int | None = None
) -> Region:
    padded = bool(getattr(images, "do_pad", False))
    box = seen_box(size, padded, images.size["shortest_edge"], images.crop_size["height"])
    return Region(medium, box, (side, side), caption, frame, tuple(images.image_mean))
