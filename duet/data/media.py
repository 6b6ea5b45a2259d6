"""The files of a question: pictures, and videos of which some frames are sampled.

A file is a video by its suffix, or if it is an animated GIF; any other file has to be a picture, whatever its suffix.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from duet.data.pictures import is_animation, open_picture
from duet.data.video import read_clip

VIDEO_ENDINGS = (".mp4", ".m4v", ".mkv", ".webm", ".avi", ".mov", ".mpg", ".mpeg")


def is_video(path: Path) -> bool:
    """Whether a file is read as a video.

    Raises:
        DataError: it is not a file that can be opened.
    """
    return path.suffix.lower() in VIDEO_ENDINGS or is_animation(path)


def open_medium(path: Path, frames: Callable[[float], int]) -> Any:
    """An RGB picture, or a `duet.types.Clip`.

    Args:
        path: of the file.
        frames: how many of a video of so many seconds.

    Raises:
        DataError: no such file, or one that cannot be read; the message names it.
    """
    return read_clip(path, frames) if is_video(path) else open_picture(path)
