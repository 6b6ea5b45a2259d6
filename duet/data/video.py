"""Frames of a video file, sampled uniformly: `read_frames(path, 8)` -> uint8 RGB `[8, H, W, 3]`.

The rule is Video-LLaVA's (`LanguageBind/video/processing_video.py`): `linspace(0, n - 1, frames)` rounded down,
so a shorter video gives some frames twice. PyAV checks the file; frames are decoded by decord where it is
installed, else by PyAV, equal bit for bit; rotation flags are not applied, as in the original.

A file that ends before its header says is an error, never a shorter video. A playlist or script with a video's name is
not opened: it could lead to other files or to the network.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from duet.data.rows import DataError
from duet.errors import UserError
from duet.extras import need
from duet.files import one_line, regular_file
from duet.types import Clip

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: As in Video-LLaVA's training.
FRAMES = 8
BACKENDS = ("decord", "av")
#: Seconds that a complete file's last packet may end before the duration in its header.
SLACK = 0.5
#: Frames per second if the file does not say.
UNKNOWN_FPS = 25
#: Frames of one video: Qwen's own limit, the highest of these families.
MOST_FRAMES = 768
#: Bytes of the sampled frames: 64 of 4K take 1.5 GiB.
MOST_BYTES = 4 * 2**30
#: Containers that hold their own frames, by ffmpeg's names.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,gif,asf,flv,ogg,mxf,dv,nut,ivf,h264,hevc,m4v,rm,"
    "mjpeg,apng,wav,mp3,aac,flac"
)
#: A title that is not UTF-8 must not stop the reading.
OPENING: dict[str, Any] = {
    "metadata_errors": "replace",
    "container_options": {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"},
}
#: Pixels that a decoder may add to a small frame.
EDGES = 1 << 16
_UNREADABLE = "cannot be decoded (truncated, damaged, or not a video)"


@dataclass(frozen=True)
class Bounds:
    """Limits for an untrusted file.

    Attributes:
        container: ffmpeg's name of its format: its content cannot choose one that opens other files or URLs;
            None: any that ffmpeg finds.
        pixels: most of all sampled frames together.
        packets: most in the video stream.
        seconds: most for reading it.
    """

    container: str | None = None
    pixels: float = math.inf
    packets: float = math.inf
    seconds: float = math.inf


class VideoError(DataError):
    """A video file without usable frames; the message names it and says why."""


class _Guard:
    """Opens a file and enforces its bounds."""

    def __init__(self, path: Path, bounds: Bounds) -> None:
        self.path, self.bounds = path, bounds
        self._end = time.monotonic() + bounds.seconds

    def open(self) -> Any:
        import av

        return av.open(str(self.path), format=self.bounds.container, **OPENING)

    def stream(self, container: Any) -> Any:
        """The frames of the file; a frame above the bounds is not decoded, whatever the header says."""
        stream = _video_stream(container, self.path)
        if not math.isinf(self.bounds.pixels):
            # decoders round sizes up to whole blocks and add edges
            stream.codec_context.options = {"max_pixels": str(int(2 * self.bounds.pixels) + EDGES)}
        return stream

    def check(self, packets: int, pixels: int = 0) -> None:
        """Called repeatedly while the file is read; `pixels`: of the sampled frames so far and the next one."""
        if packets > self.bounds.packets:
            raise VideoError(f"{self.path} has more than {self.bounds.packets} frames, the limit")
        if time.monotonic() > self._end:
            raise VideoError(f"{self.path} takes more than {self.bounds.seconds:g} s to read, the limit")

        if pixels > self.bounds.pixels:
            raise VideoError(f"{self.path} has more than {self.bounds.pixels} pixels in the sampled frames, the limit")


def sample_indices(total: int, frames: int = FRAMES) -> list[int]:
    """Indices of the sampled frames out of `total`, ascending.

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


def frames_at(fps: float, least: int = 1, most: int = MOST_FRAMES) -> Callable[[float], int]:
    """A rule: how many frames of a video of so many seconds, at `fps` frames per second."""
    return lambda seconds: min(max(round(fps * seconds), least), most)


def check_reader() -> None:
    """Check before any work, not for every video.

    Raises:
        UserError: PyAV is not installed.
    """
    need("reading videos", "video", "av")


def read_clip(
    path: str | Path, frames: Callable[[float], int], backend: str | None = None, bounds: Bounds | None = None
) -> Clip:
    """Sampled frames of a file, and their times.

    Args:
        path: of the file, any container and codec that ffmpeg reads.
        frames: how many of a video of so many seconds.
        backend: `decord` or `av`; None: decord if it is installed.
        bounds: for an untrusted file; it is read by PyAV.

    Raises:
        VideoError: no such file; truncated, empty, damaged; without pictures (audio only); without a single frame.
        UserError: PyAV is not installed.
    """
    path = regular_file(path, VideoError, "video")
    if backend not in (None, *BACKENDS):
        raise ValueError(f"backend is {backend!r}; choose {' or '.join(BACKENDS)}")
    check_reader()

    def affordable(seconds: float) -> int:
        return _affordable(guard, frames(seconds))

    try:
        guard = _Guard(path, bounds or Bounds())
        packets, fps = _count_packets(guard)
        if bounds is None and (backend or _preferred()) == "decord":
            return _decode_decord(path, packets, fps, affordable)
        return _decode_av(guard, packets, fps, affordable)
    except UserError:
        raise
    except Exception as error:  # errors of ffmpeg and its bindings
        raise VideoError(f"{path} {_UNREADABLE}: {one_line(error)}") from error


def _affordable(guard: _Guard, frames: int) -> int:
    """The number of frames, if memory holds them.

    Raises:
        VideoError: it does not.
    """
    path = guard.path
    if frames > MOST_FRAMES:
        raise VideoError(f"{frames} frames of {path} were requested; at most {MOST_FRAMES} are supported")
    with guard.open() as container:
        stream = _video_stream(container, path)
        size = 3 * stream.width * stream.height
    if frames * size > MOST_BYTES:
        raise VideoError(
            f"{frames} frames of {path} ({stream.width} x {stream.height}) take {frames * size / 2**30:.1f} GiB, at "
            f"most {MOST_BYTES / 2**30:.0f} are supported: use {MOST_BYTES // size} frames or fewer"
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
        raise VideoError(f"{path} {_UNREADABLE} by decord; backend='av' uses PyAV: {one_line(error)}") from error


def _decode_av(guard: _Guard, packets: int, fps: float, frames: Callable[[float], int]) -> Clip:
    total, indices = packets, sample_indices(packets, frames(packets / fps))
    found = list(_pick(guard, indices))
    if len(found) < len(indices):
        # some packets of a complete file show nothing, such as those before an edit list's start
        total = _count_frames(guard)
        if total == 0:
            raise VideoError(f"{guard.path} holds no frame")
        indices = sample_indices(total, len(indices))
        found = list(_pick(guard, indices))
    if len({frame.shape for frame in found}) > 1:
        raise VideoError(f"{guard.path} changes its frame size; only videos of one size can be read")
    return Clip(np.stack(found), tuple(indices), total, fps)


def _count_packets(guard: _Guard) -> tuple[int, float]:
    """Video packets of a file, and their rate per second.

    Raises:
        VideoError: there are none, or they are not as many, or do not reach as far, as the header says.
    """
    import av

    path = guard.path
    with guard.open() as container:
        stream = _video_stream(container, path)
        packets, end, fps = 0, 0.0, float(stream.average_rate or UNKNOWN_FPS)
        for packet in container.demux():
            at = packet.dts if packet.pts is None else packet.pts
            if at is None and packet.size == 0:  # comes after the last one of each stream
                continue
            packets += packet.stream_index == stream.index
            guard.check(packets)
            if at is not None:
                end = max(end, float((at + (packet.duration or 0)) * packet.time_base))
        if stream.frames:
            complete = packets >= stream.frames
        else:
            start, length = (container.start_time or 0) / av.time_base, (container.duration or 0) / av.time_base
            complete = end - start >= length - SLACK
    if not complete:
        raise VideoError(f"{path} is truncated: it ends before its header says; fetch it again")
    if packets == 0:
        raise VideoError(f"{path} holds no frame")
    return packets, fps


def _count_frames(guard: _Guard) -> int:
    count = 0
    with guard.open() as container:
        for _ in container.decode(guard.stream(container)):
            count += 1
            guard.check(count)
    return count


def _pick(guard: _Guard, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
    """Frames by index, ascending; ends early if the video does."""
    wanted = iter(indices)
    index, pixels = next(wanted), 0
    with guard.open() as container:
        stream = guard.stream(container)
        stream.thread_type = "AUTO"
        for number, frame in enumerate(container.decode(stream)):
            guard.check(number)
            while number == index:
                pixels += frame.width * frame.height
                guard.check(number, pixels)
                yield frame.to_ndarray(format="rgb24")
                following = next(wanted, None)
                if following is None:
                    return
                index = following


def _video_stream(container: Any, path: Path) -> Any:
    """The first video stream; covers of music files do not count."""
    from av.stream import Disposition

    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    kinds = sorted({stream.type for stream in container.streams})
    raise VideoError(f"{path} has no video stream" + (f", only {' and '.join(kinds)}" if kinds else ""))
