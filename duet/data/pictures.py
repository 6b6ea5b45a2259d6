"""Opens pictures as the stock processors do, except where they are silently wrong; pads them to squares.

The result is 8-bit RGB, upright: EXIF orientation is applied, as transformers' `load_image` does. Transparency is
dropped and the colours under it stay, as in every processor of these families; of several frames or pages the first is
used. 16-bit grey keeps its upper 8 bits, as Pillow does for 48-bit colour (Pillow clips grey to black and white).
32-bit and float grey is refused, because the file does not state the range.
"""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from duet.data.parquet import picture_file
from duet.data.rows import DataError
from duet.files import blame, regular_file

#: Readers to try, if this Pillow has them. Others start programs (EPS), or are not for photographs.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF", "ICO", "TGA", "QOI")
#: Pixels; about 1 GB in memory. Twice the limit of Pillow's own warning, which is not shown.
MOST_PIXELS = 2 * 89_478_485
#: Longest side, and its proportion to the shorter one (Qwen's limit): processors pad to squares, or enlarge the shorter
#: side to hundreds of pixels, and a few kilobytes of file would fill any memory.
LONGEST_SIDE, NARROWEST = 20_000, 200
#: Tags of TIFF.
_BITS, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0


def open_picture(path: Path) -> Image.Image:
    """The picture as upright RGB.

    Args:
        path: of a file, or of a picture in a parquet file (`duet.data.parquet`).

    Raises:
        DataError: no such file, unreadable, too large, or grey with an unknown range; the message names it.
    """
    file = picture_file(path)
    with blame(f"cannot read the picture {path}", DataError), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's words about size, palettes and damaged metadata
        with Image.open(file, formats=formats()) as image:
            return to_rgb(image, path)


def to_rgb(image: Image.Image, path: object) -> Image.Image:
    """An opened picture, its pixels not yet read, as upright RGB.

    Args:
        image: as Pillow opened it.
        path: of it, or another name for messages.

    Raises:
        DataError: too large, or grey with an unknown range.
        Exception: what Pillow raises on damaged pixels.
    """
    check_size(image, path)
    image.load()
    return _upright(_eight_bits(image, path)).convert("RGB")


def is_animation(path: Path) -> bool:
    """Whether a file is a GIF with several frames; False if it cannot be opened."""
    regular_file(path, DataError)
    try:
        with Image.open(path, formats=("GIF",)) as image:
            return bool(getattr(image, "is_animated", False))
    except Exception:  # opening it as a picture will report the error
        return False


@cache
def formats() -> list[str]:
    """Readers that this Pillow has."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def check_size(image: Image.Image, path: object) -> None:
    """Check that no processor runs out of memory on a picture.

    Raises:
        DataError: too many pixels, or too narrow.
    """
    width, height = image.size
    longer, shorter = max(image.size), min(image.size)
    if width * height > MOST_PIXELS or longer > LONGEST_SIDE:
        raise DataError(
            f"the picture {path} has {width} x {height} pixels; at most {LONGEST_SIDE} a side and {MOST_PIXELS:,} in "
            "all are supported: make it smaller"
        )
    if longer > NARROWEST * shorter:
        raise DataError(f"the picture {path} has {width} x {height} pixels: narrower than 1:{NARROWEST}; cut it")


def _eight_bits(image: Image.Image, path: object) -> Image.Image:
    """The picture itself, or 16-bit grey reduced to 8 bits."""
    tags = getattr(image, "tag_v2", {})  # of TIFF
    if image.mode.startswith("I;16"):
        bits = int(tags.get(_BITS, (16,))[0])
        levels = np.asarray(image.convert("I")) >> (bits - 8)
        if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow inverts it for 8 bits only
            levels = 255 - levels
        return _grey(levels, image)
    if image.mode == "I" and image.format in ("PNG", "PPM"):  # which have at most 16 bits
        return _grey(np.asarray(image) >> 8, image)
    if image.mode in ("I", "F"):
        kind = "32-bit integers" if image.mode == "I" else "floating-point numbers"
        raise DataError(
            f"the picture {path} has grey levels as {kind}, and does not say which value is white: save it with 8 or "
            "16 bits"
        )
    return image


def _grey(levels: np.ndarray, image: Image.Image) -> Image.Image:
    made = Image.fromarray(levels.astype(np.uint8))
    made.info = image.info
    made.getexif().update(image.getexif())
    return made


def _upright(image: Image.Image) -> Image.Image:
    """Turned by its EXIF orientation; as stored if that cannot be read."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # of its metadata, not of its pixels
        return image


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
