"""Pictures of a request: base64 -> bytes -> RGB, sizes checked before anything is decoded."""

from __future__ import annotations

import base64
import binascii
import io
import re

from PIL import Image

from duet.data.pictures import to_rgb
from duet.data.rows import DataError
from duet.serve.errors import ApiError, refuse
from duet.serve.limits import MEGA, Limits

#: Formats that Pillow may try; only the first frame of an animation is used.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
_DATA_URL = re.compile(r"data:([a-z0-9.+-]+/[a-z0-9.+-]+)?(?:;[a-z0-9=._-]+)*;base64,", re.IGNORECASE)


def read_data_url(url: str, limits: Limits, where: str) -> bytes | None:
    """Bytes of a data URL; None if it is another URL.

    Args:
        url: `data:image/png;base64,...`.
        limits: of the server.
        where: the parameter, for messages.

    Raises:
        ApiError: too long, or not base64.
    """
    if url[:5].lower() != "data:":
        return None
    head = _DATA_URL.match(url[:200])
    if head is None:
        raise refuse(f"{where}: a data URL must begin like data:image/png;base64,", where)
    if (len(url) - head.end()) * 3 // 4 - 2 > limits.medium:
        raise too_large(limits, where)
    try:
        content = base64.b64decode(url[head.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise refuse(f"{where}: the data is not valid base64", where) from None
    if len(content) > limits.medium:
        raise too_large(limits, where)
    return content


def too_large(limits: Limits, where: str) -> ApiError:
    """413 for a picture or video."""
    message = f"{where}: more than {limits.medium / MEGA:g} MiB, the limit for one picture or video"
    return ApiError(413, message, param=where, code="too_large")


class Pixels:
    """Counts the pixels of a request against the limit.

    Args:
        limits: of the server.
    """

    def __init__(self, limits: Limits) -> None:
        self.limit, self.left, self.side = limits.pixels, limits.pixels, limits.side

    def take(self, width: int, height: int, frames: int, where: str) -> None:
        """Count a picture or the sampled frames of a video before decoding.

        Raises:
            ApiError: more than the limit.
        """
        self.check(width, height, frames, where)
        self.left -= width * height * frames

    def check(self, width: int, height: int, frames: int, where: str) -> None:
        """Whether they are within the limit; counts nothing."""
        what = f"{frames} frames of {width} x {height}" if frames > 1 else f"{width} x {height}"
        if max(width, height) > self.side:
            message = f"{where}: {what} pixels; the limit is {self.side} along a side"
            raise refuse(message, where, "too_many_pixels")
        if width * height * frames > self.left or min(width, height) < 1:
            raise self.too_many(f"{what} pixels are too many", where)

    def too_many(self, what: str, where: str) -> ApiError:
        """The refusal."""
        limit = f"{self.limit / 1e6:g} megapixels for all pictures and frames of a request"
        return refuse(f"{where}: {what}; the limit is {limit}", where, "too_many_pixels")


def open_image(content: bytes, pixels: Pixels, where: str) -> Image.Image:
    """An RGB picture.

    Raises:
        ApiError: not one of the `FORMATS`, damaged, or too many pixels.
    """
    size = _webp_size(content)
    if size is not None:  # Pillow allocates the whole picture when it opens a WebP
        pixels.check(*size, 1, where)
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            pixels.take(width, height, 1, where)
            return to_rgb(image, "that you sent")
    except ApiError:
        raise
    except Image.DecompressionBombError:
        raise pixels.too_many("too many pixels", where) from None
    except DataError as error:
        raise refuse(f"{where}: {error}", where, "invalid_image") from None
    except Exception:  # Pillow may raise anything on a damaged file
        raise refuse(f"{where}: not a picture ({', '.join(FORMATS)}), or damaged", where, "invalid_image") from None


def _webp_size(content: bytes) -> tuple[int, int] | None:
    """Width and height from the header of a WebP; None if the file is not WebP.

    The three kinds of first chunk follow the container's specification (RFC 9649, sections 2.5 to 2.7).
    """
    if content[:4] != b"RIFF" or content[8:12] != b"WEBP" or len(content) < 30:
        return None
    kind, data = content[12:16], content[20:30]
    if kind == b"VP8X":
        return int.from_bytes(data[4:7], "little") + 1, int.from_bytes(data[7:10], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(data[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return int.from_bytes(data[6:8], "little") & 0x3FFF, int.from_bytes(data[8:10], "little") & 0x3FFF
