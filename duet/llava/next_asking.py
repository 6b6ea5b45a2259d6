"""Prompts of LLaVA-NeXT, and the picture regions of the patches of its base crop and tiles."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape

from duet.llava.anyres import lay_out
from duet.llava.asking import LlavaAsking
from duet.types import Region

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from duet.llava.anyres import Crop


class LlavaNextAsking(LlavaAsking):
    """The conversation of its language model; one unit per crop."""

    def regions(self, inputs: Mapping[str, Tensor], media: Sequence[Any]) -> list[Region]:
        """The whole picture, squeezed into a square; then its tiles without their padding."""
        vision = self.config.vision_config
        pinpoints = tuple((height, width) for height, width in self.config.image_grid_pinpoints)
        side = vision.image_size // vision.patch_size
        regions = []
        for number, picture in enumerate(media):
            size = (picture.height, picture.width)
            layout = lay_out(size, pinpoints, vision.image_size, side)
            tiles = get_anyres_image_grid_shape(size, list(pinpoints), vision.image_size)
            regions.append(Region(number, (0, 0, *picture.size), (side, side), "base crop"))
            for crop in layout.crops[1:]:
                box = _tile_box(crop, size, tiles, vision.image_size, vision.patch_size)
                regions.append(Region(number, box, crop.size, f"tile {crop.number} of {layout.count - 1}"))
        return regions


def _tile_box(
    crop: Crop, size: tuple[int, int], tiles: tuple[int, int], crop_size: int, patch: int
) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of a tile's patches in pixels of the original picture.

    The picture is enlarged, keeping its proportions, until it fills the tiles in one direction; it is centred in the
    other.

    Args:
        crop: the tile.
        size: height and width of the original.
        tiles: rows and columns of tiles.
        crop_size, patch: side of a tile and of a patch in pixels.
    """
    target = [count * crop_size for count in tiles]
    scale = min(target[0] / size[0], target[1] / size[1])
    edges = []
    place = divmod(crop.number - 1, tiles[1])
    for axis, kept in enumerate((crop.rows, crop.columns)):
        enlarged = min(ceil(size[axis] * scale), target[axis])
        first = place[axis] * crop_size - (target[axis] - enlarged) // 2
        edges.append([(first + patch * at) * size[axis] / enlarged for at in (kept.start, kept.stop)])
    (top, bottom), (left, right) = edges
    return left, top, right, bottom
