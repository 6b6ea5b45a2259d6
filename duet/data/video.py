"""Frames of a video file, sampled uniformly: `read_frames(path, 8)` -> uint8 RGB `[8, H, W, 3]`.

The rule is Video-LLaVA's (`LanguageBind/video/processing_video.py`): `linspace(0, n - 1, frames)` cut to whole numbers,
so a video of fewer frames gives some of them twice. PyAV checks the file; frames are decoded by decord where it is
installed, else by PyAV, equal bit for bit; rotation flags are not applied, as in the original.

A file that ends before its header says is an error, never a shorter video. A playlist or a script under a video's name
is not opened: it could lead to other files and to the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from duet.data.rows import DataError
from duet.errors import UserError
from duet.files import one_line, regular_file
from duet.types import Clip

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: What Video-LLaVA was trained on.
FRAMES = 8
BACKENDS = ("decord", "av")
#: Seconds that a complete file's last packet may end before the duration in its header.
SLACK = 0.5
#: Frames per second of a file that does not say.
UNKNOWN_FPS = 25
#: Frames of one video: Qwen's own limit, the highest of these families.
MOST_FRAMES = 768
#: Bytes of the sampled frames: 64 of 4K take 1.5 GiB.
MOST_BYTES = 4 * 2**30
#: Containers that hold their frames themselves, by ffmpeg's names.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,gif,asf,flv,ogg,mxf,dv,nut,ivf,h264,hevc,m4v,rm,"
    "mjpeg,apng,wav,mp3,aac,flac"
)
#: A title in another encoding than UTF-8 is no reason not to look at the pictures.
OPENING: dict[str, Any] = {
    "metadata_errors": "replace",
    "container_options": {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"},
}
_UNREADABLE = "cannot be decoded (cut short, damaged, or no video)"


@dataclass(frozen=True)
class Bounds:
    """What a file from a stranger may be.

    Attributes:
        container: ffmpeg's name of its format; what is inside can't choose one that opens other files and addresses.
        pixels: most of a frame.
        packets: most in the video stream, which is what may have to be decoded.
    """

    container: str
    pixels: int
    packets: int


class VideoError(DataError):
    """A video file that gives no frames; the message names it and says why."""


def sample_indices(total: int, frames: int = FRAMES) -> list[int]:
    """Numbers of the frames that are taken of `total`, ascending.

    >>> sample_indices(243)
    [0, 34, 69, 103, 138, 172, 207, 242]
    """
    if total < 1 or frames < 1:
        raise ValueError(f"cannot take {frames} frame(s) of {total}")
    return np.linspace(0, total - 1, frames, dtype=int).tolist()


def read_frames(path: str | Path, frames: int = FRAMES, backend: str | None = None) -> NDArray[np.uint8]:
    """Sampled frames of a file, `[frames, H, W, 3]`: `read_clip` without the times."""
    if frames < 1:
        raise ValueError(f"frames is {frames}; at least one is needed")
    return read_clip(path, lambda _: frames, backend).frames


def check_reader() -> None:
    """Say it once and before any work, not for every video.

    Raises:
        UserError: PyAV is not installed.
    """
    if find_spec("av") is None:
        raise UserError("reading videos needs PyAV: pip install av")


def read_clip(
    path: str | Path, frames: Callable[[float], int], backend: str | None = None, bounds: Bounds | None = None
) -> Clip:
    """Sampled frames of a file, and when they are shown.

    Args:
        path: of the file, any container and codec that ffmpeg reads.
        frames: how many of a video of so many seconds.
        backend: `decord` or `av`; None takes decord where it is installed.
        bounds: of a file that is not trusted; it is read by PyAV.

    Raises:
        VideoError: no such file; truncated, empty, damaged; without pictures (audio only); without a single frame.
        UserError: PyAV is not installed.
    """
    path = regular_file(path, VideoError, "video")
    if backend not in (None, *BACKENDS):
        raise ValueError(f"backend is {backend!r}; choose {' or '.join(BACKENDS)}")
    check_reader()

    def affordable(seconds: float) -> int:
        return _affordable(path, frames(seconds), bounds)

    try:
        packets, fps = _count_packets(path, bounds)
        if bounds is None and (backend or _preferred()) == "decord":
            return _decode_decord(path, packets, fps, affordable)
        return _decode_av(path, packets, fps, affordable, bounds)
    except UserError:
        raise
    except Exception as error:  # ffmpeg's own, and what its bindings raise on the way
        raise VideoError(f"{path} {_UNREADABLE}: {one_line(error)}") from error


def _affordable(path: Path, frames: int, bounds: Bounds | None) -> int:
    """The number of frames, if memory holds them.

    Raises:
        VideoError: it would not.
    """
    if frames > MOST_FRAMES:
        raise VideoError(f"{frames} frames of {path} were asked for; at most {MOST_FRAMES} are taken")
    with _open(path, bounds) as container:
        stream = _video_stream(container, path)
        size = 3 * stream.width * stream.height
    if frames * size > MOST_BYTES:
        raise VideoError(
            f"{frames} frames of {path} ({stream.width} x {stream.height}) take {frames * size / 2**30:.1f} GiB, at "
            f"most {MOST_BYTES / 2**30:.0f} are taken: ask for {MOST_BYTES // size} frames or fewer"
        )
    return frames


def _preferred() -> str:
    return "decord" if find_spec("decord") else "av"


def _decode_decord(path: Path, packets: int, fps: float, frames: Callable[[float], int]) -> Clip:
    import decord

    try:
        reader = decord.VideoReader(str(path), num_threads=1)
        total = len(reader)
        indices = sample_indices(total, frames(total / fps))
        return Clip(reader.get_batch(indices).asnumpy(), tuple(indices), total, fps)
    except (RuntimeError, decord.DECORDError) as error:
        raise VideoError(f"{path} {_UNREADABLE} by decord; backend='av' takes PyAV: {one_line(error)}") from error


def _open(path: Path, bounds: Bounds | None) -> Any:
    import av

    if bounds is None:
        return av.open(str(path), **OPENING)
    stranger: Any = {"format": bounds.container, "options": {"max_pixels": str(bounds.pixels)}}
    return av.open(str(path), **OPENING, **stranger)


def _decode_av(path: Path, packets: int, fps: float, frames: Callable[[float], int], bounds: Bounds | None) -> Clip:
    total, indices = packets, sample_indices(packets, frames(packets / fps))
    found = list(_pick(path, indices, bounds))
    if len(found) < len(indices):
        # some packets of a complete file show nothing, such as those before an edit list's start
        total = _count_frames(path, bounds)
        if total == 0:
            raise VideoError(f"{path} holds no frame")
        indices = sample_indices(total, len(indices))
        found = list(_pick(path, indices, bounds))
    if len({frame.shape for frame in found}) > 1:
        raise VideoError(f"{path} changes its size on the way; only videos of one size can be read")
    return Clip(np.stack(found), tuple(indices), total, fps)


def _count_packets(path: Path, bounds: Bounds | None = None) -> tuple[int, float]:
    """Video packets of a file, and how many of them a second has.

    Raises:
        VideoError: there are none, or they are not as many, or do not reach as far, as the header says; or they are
            out of bounds.
    """
    import av

    with _open(path, bounds) as container:
        stream = _video_stream(container, path)
        if bounds is not None and stream.width * stream.height > bounds.pixels:
            raise VideoError(f"{path} has frames of {stream.width} x {stream.height} pixels, more than may be read")
        packets, end, fps = 0, 0.0, float(stream.average_rate or UNKNOWN_FPS)
        for packet in container.demux():
            at = packet.dts if packet.pts is None else packet.pts
            if at is None and packet.size == 0:  # comes behind the last one of each stream
                continue
            packets += packet.stream_index == stream.index
            if bounds is not None and packets > bounds.packets:
                raise VideoError(f"{path} has more than {bounds.packets} frames, more than may be read")
            if at is not None:
                end = max(end, float((at + (packet.duration or 0)) * packet.time_base))
        if stream.frames:
            complete = packets >= stream.frames
        else:
            start, length = (container.start_time or 0) / av.time_base, (container.duration or 0) / av.time_base
            complete = end - start >= length - SLACK
    if not complete:
        raise VideoError(f"{path} is cut short: it ends before its header says; fetch it again")
    if packets == 0:
        raise VideoError(f"{path} holds no frame")
    return packets, fps


def _count_frames(path: Path, bounds: Bounds | None) -> int:
    with _open(path, bounds) as container:
        return sum(1 for _ in container.decode(_video_stream(container, path)))


def _pick(path: Path, indices: Sequence[int], bounds: Bounds | None = None) -> Iterator[NDArray[np.uint8]]:
    """Frames by number, ascending; ends early where the video does."""
    wanted = iter(indices)
    index = next(wanted)
    with _open(path, bounds) as container:
        stream = _video_stream(container, path)
        stream.thread_type = "AUTO"
        for number, frame in enumerate(container.decode(stream)):
            while number == index:
                yield frame.to_ndarray(format="rgb24")
                following = next(wanted, None)
                if following is None:
                    return
                index = following


def _video_stream(container: Any, path: Path) -> Any:
    """The first stream of moving pictures; covers of music files are none."""
    from av.stream import Disposition

    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    kinds = sorted({stream.type for stream in container.streams})
    raise VideoError(f"{path} has no video stream" + (f", only {' and '.join(kinds)}" if kinds else ""))
