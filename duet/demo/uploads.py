"""An uploaded file -> an RGB picture or sampled frames, under the limits of `duet serve`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from duet.errors import UserError
from duet.serve.errors import ApiError
from duet.serve.limits import MEGA, Limits
from duet.serve.media import Pixels, open_image
from duet.serve.video import open_video

if TYPE_CHECKING:
    from collections.abc import Callable

#: Limits of the demo; those of a body, of text and of several media do not apply.
LIMITS = Limits(text=2_000, new_tokens=256, queue=16, timeout=120)


def open_upload(path: str, *, video: bool, frames: Callable[[float], int], limits: Limits = LIMITS) -> Any:
    """A picture, or a `duet.types.Clip`.

    Args:
        path: of the uploaded file.
        video: whether it has to be a video.
        frames: how many of a video of so many seconds.
        limits: bytes, pixels, frames.

    Raises:
        UserError: not of a known format, damaged, or too large; names no path.
    """
    where = "the video" if video else "the picture"
    file = Path(path)
    if file.stat().st_size > limits.medium:
        raise UserError(f"{where} has more than {limits.medium // MEGA} MiB, the limit")
    try:
        if video:
            return open_video(file.read_bytes(), frames, Pixels(limits), limits, where)
        return open_image(file.read_bytes(), Pixels(limits), where)
    except ApiError as error:
        raise UserError(error.message) from None
