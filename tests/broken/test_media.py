"""Broken or truncated pictures and videos: a line that names the file, within seconds, whatever they contain."""

from __future__ import annotations

import io
import os
import socket
import tarfile
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from duet.data.media import open_medium
from duet.data.rows import DataError
from duet.errors import UserError
from duet.types import Clip

ENDINGS = ("png", "jpg", "webp", "gif", "tif", "bmp", "mp4", "mkv", "avi", "mov")


def within(seconds: float, call: Callable[[], object]) -> object:
    """What a call returns or raises; a call that hangs fails the test."""
    result: list[object] = []

    def work() -> None:
        try:
            result.append(call())
        except BaseException as error:
            result.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), f"hangs for more than {seconds} s"
    return result[0]


def refused(path: Path) -> None:
    """Opening it is an error that names it on one line."""
    told = within(10, lambda: open_medium(path, lambda _: 4))
    assert isinstance(told, UserError), told
    assert str(path)[:50] in str(told) and "\n" not in str(told)


@pytest.mark.parametrize("ending", ENDINGS)
def test_places_that_are_no_files(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"folder.{ending}").mkdir()
    (tmp_path / f"empty.{ending}").touch()
    os.mkfifo(tmp_path / f"pipe.{ending}")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / f"socket.{ending}"))
    (tmp_path / f"device.{ending}").symlink_to("/dev/zero")
    (tmp_path / f"loop.{ending}").symlink_to(tmp_path / f"loop.{ending}")
    for name in ("folder", "empty", "pipe", "socket", "device", "loop", "none", "x" * 300):
        refused(tmp_path / f"{name}.{ending}")


def garbage() -> dict[str, bytes]:
    """Bytes that are no picture and no video, some of which pretend."""
    noise = np.random.default_rng(0).bytes(5000)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as made:
        made.addfile(tarfile.TarInfo("a"), io.BytesIO(b""))
    heads = {
        "png": b"\x89PNG\r\n\x1a\n",
        "jpg": b"\xff\xd8\xff\xe0",
        "gif": b"GIF89a",
        "webp": b"RIFF\x00\x10\x00\x00WEBPVP8 ",
        "tif": b"II*\0\x08\0\0\0",
        "bmp": b"BM",
        "mp4": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom",
        "mkv": b"\x1a\x45\xdf\xa3",
        "avi": b"RIFF\xff\xff\xff\x7fAVI LIST",
        "qoi": b"qoif\xff\xff\xff\xff\xff\xff\xff\xff\3\0",
        "jp2": b"\0\0\0\x0cjP  \r\n\x87\n",
    }
    texts = {"text": b"nothing to see\n" * 50, "json": b"{}", "zlib": zlib.compress(noise), "tar": archive.getvalue()}
    playlists = {
        "m3u8": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
        "concat": b"ffconcat version 1.0\nfile '/etc/passwd'\n",
        "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
    }
    return {"noise": noise, **{name: head + noise for name, head in heads.items()}, **texts, **playlists}


@pytest.mark.parametrize("kind", garbage())
@pytest.mark.parametrize("ending", ["png", "mp4"])
def test_garbage(tmp_path: Path, kind: str, ending: str) -> None:
    path = tmp_path / f"file.{ending}"
    path.write_bytes(garbage()[kind])
    refused(path)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "gif", "tif", "bmp"])
def test_pictures_cut_and_bitten(tmp_path: Path, ending: str) -> None:
    """A cut one is refused; one with wrong bytes inside is refused or read, and nothing else happens."""
    pixels = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    path = tmp_path / f"whole.{ending}"
    Image.fromarray(pixels).save(path)
    data = path.read_bytes()
    for share in (0.02, 0.3, 0.6):
        (tmp_path / f"cut.{ending}").write_bytes(data[: int(len(data) * share)])
        refused(tmp_path / f"cut.{ending}")
    generator = np.random.default_rng(2)
    for _ in range(60):
        bitten = bytearray(data)
        for place in generator.integers(0, min(len(data), 400), 4):
            bitten[place] = int(generator.integers(0, 256))
        (tmp_path / f"bitten.{ending}").write_bytes(bitten)
        told = within(10, lambda: open_medium(tmp_path / f"bitten.{ending}", lambda _: 4))
        assert isinstance(told, (Image.Image, Clip, UserError)), told


def film(path: Path, frames: int = 12, size: tuple[int, int] = (64, 48), **metadata: str) -> Path:
    """A small video of noise."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        container.metadata.update(metadata)
        stream = container.add_stream("mpeg4", rate=6)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for seed in range(frames):
            noise = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi"])
def test_videos_cut_and_bitten(tmp_path: Path, ending: str) -> None:
    data = film(tmp_path / f"whole.{ending}").read_bytes()
    generator = np.random.default_rng(3)
    for _ in range(60):
        bitten = bytearray(data)
        for place in generator.integers(0, len(data), 12):
            bitten[place] = int(generator.integers(0, 256))
        (tmp_path / f"bitten.{ending}").write_bytes(bitten)
        told = within(10, lambda: open_medium(tmp_path / f"bitten.{ending}", lambda _: 4))
        assert isinstance(told, (Clip, UserError)), told


def test_a_title_that_is_no_utf_8_is_no_reason_to_refuse(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mkv", title="A title that is long enough")
    data = path.read_bytes()
    assert b"A title that" in data
    path.write_bytes(data.replace(b"A title that", b"A \xe4\xf6\xfc\xff\xfe that"))
    clip = open_medium(path, lambda _: 4)
    assert isinstance(clip, Clip) and clip.frames.shape == (4, 48, 64, 3)


@pytest.mark.parametrize("frames", [0, -3, 769, 100_000, 10**12])
def test_absurd_numbers_of_frames(tmp_path: Path, frames: int) -> None:
    path = film(tmp_path / "film.mp4")
    told = within(10, lambda: open_medium(path, lambda _: frames))
    assert isinstance(told, DataError) and str(path) in str(told)


def test_frames_that_memory_does_not_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("duet.data.video.MOST_BYTES", 10 * 64 * 48 * 3)
    path = film(tmp_path / "film.mp4")
    with pytest.raises(DataError, match=r"12 frames of .*film\.mp4 \(64 x 48\) take .* use 10 frames or fewer"):
        open_medium(path, lambda _: 12)
    assert open_medium(path, lambda _: 10).frames.shape[0] == 10
