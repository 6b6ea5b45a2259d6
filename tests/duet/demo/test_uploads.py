"""Files of strangers: read under caps, refused in a sentence that names no path."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="fastapi is not installed: pip install -e .[demo]")

from duet.demo.uploads import LIMITS, open_upload
from duet.errors import UserError


def bomb(side: int) -> bytes:
    """A PNG of a few bytes that claims so many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.webp"
    Image.new("RGBA", (30, 20), "red").save(path)
    opened = open_upload(str(path), video=False, frames=lambda _: 8)
    assert (opened.mode, opened.size) == ("RGB", (30, 20))


@pytest.mark.parametrize(
    ("content", "video", "message"),
    [
        (b"x" * 100, False, "not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", False, "not a picture"),
        (bomb(8000), False, "megapixels"),
        (bomb(9000), False, "along a side"),
        (b"x" * 2000, False, "1 MiB"),
        (b"#EXTM3U\nfile:///etc/passwd", True, "not a video"),
        (b"\0\0\0\x18ftypmp42" + b"\0" * 100, True, "damaged"),
    ],
)
def test_refused(content: bytes, video: bool, message: str, tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_bytes(content * (1 << 10) if "MiB" in message else content)
    limits = replace(LIMITS, medium=1 << 20)
    with pytest.raises(UserError, match=message) as error:
        open_upload(str(path), video=video, frames=lambda _: 8, limits=limits)
    assert str(tmp_path) not in str(error.value)
