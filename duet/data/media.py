"""Files that a question is about: pictures, and videos of which some frames are looked at.

A file is a video by its ending, or if it is an animated GIF; everything else has to be a picture, whatever its ending.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from duet.data.pictures import BROKEN, open_picture
from duet.data.video import read_clip

VIDEO_ENDINGS = (".mp4", ".m4v", ".mkv", ".webm", ".avi", ".mov", ".mpg", ".mpeg")


def is_video(path: Path) -> bool:
    """Whether a file is read as a video."""
    if path.suffix.lower() in VIDEO_ENDINGS:
        return True
    try:
        with Image.open(path) as image:
            return image.format == "GIF" and getattr(image, "is_animated", False)
    except BROKEN:  # opening it as a picture says what is wrong
        return False


def open_medium(path: Path, frames: Callable[[float], int]) -> Any:
    """An RGB picture, or a `duet.types.Clip`.

    Args:
        path: of the file.
        frames: how many of a video of so many seconds.

    Raises:
        DataError: no such file, or one that cannot be read; the message names it.
    """
    return read_clip(path, frames) if is_video(path) else open_picture(path)
