"""Opens pictures for training, and pads them to squares the way LLaVA-1.5 does."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from PIL import Image

from duet.data.rows import DataError

#: What Pillow's readers raise on a damaged file, each in its own way.
BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def open_picture(path: Path) -> Image.Image:
    """The picture as RGB; an unreadable file is an error that names it."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError as error:
        raise DataError(f"no such picture: {path} (is the folder of the pictures right?)") from error
    except BROKEN as error:
        raise DataError(f"cannot read the picture {path}: {error}") from error


def pad_to_square(image: Image.Image, mean: tuple[float, ...]) -> Image.Image:
    """The picture centred on a square of the processor's mean color (0..1 per channel).

    This is what LLaVA calls `image_aspect_ratio: pad`; a square picture is returned as it is.
    """
    width, height = image.size
    if width == height:
        return image
    side = max(width, height)
    square = Image.new("RGB", (side, side), tuple(int(channel * 255) for channel in mean))
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square
