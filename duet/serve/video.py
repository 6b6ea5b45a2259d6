"""Videos of a request: bytes -> sampled frames; format recognised by the first bytes, size bounded."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from duet.data.rows import DataError
from duet.data.video import Bounds, read_clip
from duet.serve.errors import ApiError, refuse

if TYPE_CHECKING:
    from duet.serve.limits import Limits
    from duet.serve.media import Pixels
    from duet.types import Clip

#: Name for people, ffmpeg's name, and (offset, bytes) that identify the format.
FORMATS = (
    ("MP4 or MOV", "mov", ((4, b"ftyp"),)),
    ("WebM or MKV", "matroska", ((0, b"\x1a\x45\xdf\xa3"),)),
    ("AVI", "avi", ((0, b"RIFF"), (8, b"AVI "))),
    ("GIF", "gif", ((0, b"GIF8"),)),
)


def open_video(content: bytes, frames: Callable[[float], int], pixels: Pixels, limits: Limits, where: str) -> Clip:
    """Sampled frames of a video.

    Args:
        content: the file.
        frames: how many of a video of so many seconds: the model's own rule.
        pixels: what is left of the request's limit.
        limits: of the server; `frames` caps the rule.
        where: the parameter, for messages.

    Raises:
        ApiError: not one of the `FORMATS`, truncated, damaged, or too large.
    """
    container = next((name for _, name, marks in FORMATS if _has(content, marks)), None)
    kinds = ", ".join(name for name, *_ in FORMATS)
    if container is None:
        raise refuse(f"{where}: not a video ({kinds})", where, "invalid_video")
    if find_spec("av") is None:
        raise ApiError(501, f"{where}: this server cannot read videos", param=where, code="no_videos")
    bounds = Bounds(container, pixels.left, limits.video, limits.decode)
    with tempfile.TemporaryDirectory(prefix="duet-serve-") as folder:
        path = Path(folder, "video")
        path.write_bytes(content)
        try:
            clip = read_clip(path, lambda seconds: min(frames(seconds), limits.frames), "av", bounds)
        except (DataError, ValueError, MemoryError):
            raise refuse(
                f"{where}: a damaged video, or one that is too large: the limits are {limits.video} frames, "
                f"{limits.pixels / 1e6:g} megapixels of the sampled ones, {limits.decode:g} s of decoding",
                where,
                "invalid_video",
            ) from None
    count, height, width = clip.frames.shape[:3]
    pixels.take(width, height, count, where)
    return clip


def _has(content: bytes, marks: tuple[tuple[int, bytes], ...]) -> bool:
    return all(content[place : place + len(mark)] == mark for place, mark in marks)
