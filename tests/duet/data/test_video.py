"""Frames of video files: the original's indices, both decoders, and every kind of broken file."""

from __future__ import annotations

import json
import os
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from duet.data import video
from duet.data.rows import DataError
from duet.data.video import Bounds, VideoError, read_frames, sample_indices
from duet.errors import UserError

av = pytest.importorskip("av")

MEDIA = Path(os.environ.get("DUET_MEDIA", Path(__file__).parents[4] / "shared" / "media"))
DECODERS = ["av", pytest.param("decord", marks=pytest.mark.skipif(not find_spec("decord"), reason="decord is absent"))]
BOTH = pytest.mark.parametrize("backend", DECODERS)
#: decord refuses pictures that are less than 64 wide.
SHAPE = (48, 64)


def write(path: Path, frames: int, codec: str = "mpeg4", sound: bool = False, shape: tuple[int, int] = SHAPE) -> Path:
    """A video whose frame number i is a grey of 10 + 8 i."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width = shape
        stream.pix_fmt = "yuv420p"
        audio = add_sound(container) if sound else None
        container.start_encoding()
        for number in range(frames):
            grey = np.full((*shape, 3), 10 + 8 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode())
        if audio is not None:
            play(container, audio)
    return path


def add_sound(container):
    audio = container.add_stream("aac", rate=16000)
    audio.layout = "mono"
    return audio


def play(container, audio) -> None:
    for number in range(20):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16000, number * 1024, Fraction(1, 16000)
        container.mux(audio.encode(frame))
    container.mux(audio.encode())


def numbers(frames: np.ndarray) -> list[int]:
    return [round((float(frame.mean()) - 10) / 8) for frame in frames]


def test_indices_are_the_originals():
    assert sample_indices(243) == [0, 34, 69, 103, 138, 172, 207, 242]
    assert sample_indices(8) == list(range(8))
    assert sample_indices(3, 8) == [0, 0, 0, 0, 1, 1, 1, 2]
    assert sample_indices(1, 4) == [0, 0, 0, 0]
    assert sample_indices(100, 1) == [0]
    with pytest.raises(ValueError, match="cannot take 8"):
        sample_indices(0)


@pytest.mark.skipif(not MEDIA.is_dir(), reason="no folder of real videos; DUET_MEDIA names one")
@BOTH
def test_real_videos(backend):
    listed = json.loads((MEDIA / "video_frames.json").read_text())["videos"]
    for name, facts in listed.items():
        path = MEDIA / "videos" / name
        assert video.read_clip(path, lambda _: 1, "av").total == facts["n_frames"]
        assert sample_indices(facts["n_frames"]) == facts["frames"]
        frames = read_frames(path, backend=backend)
        with av.open(str(path)) as container:
            decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert np.array_equal(frames, np.stack([decoded[index] for index in facts["frames"]]))


@pytest.mark.parametrize("ending", ["mp4", "avi", "mov", "mkv"])
@pytest.mark.parametrize(("total", "frames"), [(20, 8), (20, 16), (5, 8), (1, 3)])
@BOTH
def test_the_sampled_frames_come_out(tmp_path, ending, total, frames, backend):
    found = read_frames(write(tmp_path / f"clip.{ending}", total), frames, backend)
    assert found.shape == (frames, *SHAPE, 3) and found.dtype == np.uint8
    assert numbers(found) == sample_indices(total, frames)


@BOTH
def test_reordered_frames_and_sound(tmp_path, backend):
    """H.264 stores frames in another order than it shows them."""
    found = read_frames(write(tmp_path / "clip.mp4", 24, "libx264", sound=True), 6, backend)
    assert numbers(found) == sample_indices(24, 6)


def test_packets_that_show_nothing(tmp_path, monkeypatch):
    """A file with an edit list shows fewer frames than it has packets: the shown ones are sampled."""
    path = write(tmp_path / "clip.mp4", 20)
    monkeypatch.setattr(video, "_count_packets", lambda guard: (26, 10.0))
    assert numbers(read_frames(path, 5, "av")) == sample_indices(20, 5)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        (Bounds(packets=19), "more than 19 frames"),
        (Bounds(pixels=4 * SHAPE[0] * SHAPE[1]), "pixels in the sampled frames"),
        (Bounds(seconds=0), "0 s to read"),
        (Bounds(container="avi"), "cannot be decoded"),
    ],
)
def test_a_file_out_of_bounds_is_refused(tmp_path, bounds, message):
    path = write(tmp_path / "clip.mp4", 20)
    fits = Bounds("mov", 5 * SHAPE[0] * SHAPE[1], 20, 60)
    assert numbers(video.read_clip(path, lambda _: 5, bounds=fits).frames) == sample_indices(20, 5)
    with pytest.raises(VideoError, match=message):
        video.read_clip(path, lambda _: 5, bounds=bounds)


def test_a_frame_that_is_too_large_is_not_decoded(tmp_path):
    path = write(tmp_path / "clip.mp4", 2, shape=(480, 640))
    with pytest.raises(VideoError, match="cannot be decoded"):
        video.read_clip(path, lambda _: 1, bounds=Bounds("mov", pixels=1000))


def cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


@pytest.mark.parametrize("ending", ["mp4", "avi", "mkv"])
@BOTH
def test_a_truncated_file(tmp_path, ending, backend):
    rng = np.random.default_rng(0)
    path = tmp_path / f"clip.{ending}"
    with av.open(str(path), "w", options={"movflags": "faststart"} if ending == "mp4" else {}) as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width = SHAPE
        stream.pix_fmt = "yuv420p"
        for _ in range(40):
            noise = rng.integers(0, 255, (*SHAPE, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
        container.mux(stream.encode())
    assert read_frames(path, 4, backend).shape[0] == 4
    with pytest.raises(VideoError, match=rf"clip.{ending} (is truncated|cannot be decoded)"):
        read_frames(cut(path, 0.6), 4, backend)


@BOTH
def test_files_that_are_no_videos(tmp_path, backend):
    empty, noise, absent = tmp_path / "empty.mp4", tmp_path / "noise.mp4", tmp_path / "absent.mp4"
    empty.write_bytes(b"")
    noise.write_bytes(bytes(range(256)) * 40)
    with pytest.raises(VideoError, match=r"empty.mp4 is empty"):
        read_frames(empty, backend=backend)
    with pytest.raises(VideoError, match=r"noise.mp4 (cannot be decoded|has no video|holds no frame)"):
        read_frames(noise, backend=backend)
    with pytest.raises(VideoError, match=r"no such video: .*absent.mp4"):
        read_frames(absent, backend=backend)
    with pytest.raises(VideoError, match="is a folder, not a file; expected a video"):
        read_frames(tmp_path, backend=backend)


@BOTH
def test_sound_alone(tmp_path, backend):
    path = tmp_path / "song.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        play(container, add_sound(container))
    with pytest.raises(VideoError, match=r"song.m4a has no video stream, only audio"):
        read_frames(path, backend=backend)


@pytest.mark.parametrize("ending", ["avi", "mkv"])
@BOTH
def test_a_video_without_a_frame(tmp_path, ending, backend):
    path = write(tmp_path / f"clip.{ending}", 0)
    with pytest.raises(VideoError, match=rf"clip.{ending} (holds no frame|has no video|cannot be decoded)"):
        read_frames(path, backend=backend)


def test_without_pyav_it_is_one_mistake_and_not_one_per_video(tmp_path, monkeypatch):
    path = write(tmp_path / "clip.mp4", 3)
    monkeypatch.setattr("duet.extras.find_spec", lambda name: None)
    with pytest.raises(UserError, match="reading videos needs av: pip install") as found:
        read_frames(path)
    assert not isinstance(found.value, DataError)  # an evaluation continues after those


def test_wrong_arguments(tmp_path):
    path = write(tmp_path / "clip.mp4", 3)
    with pytest.raises(ValueError, match="at least one is needed"):
        read_frames(path, 0)
    with pytest.raises(ValueError, match="choose decord or av"):
        read_frames(path, 2, "opencv")
