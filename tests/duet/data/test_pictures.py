"""Pictures of every kind against their content: nothing is clipped or rotated, or silently too large."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from duet.data.pictures import LONGEST_SIDE, open_picture
from duet.data.rows import DataError

#: 100 grey levels of 16 bits, from black to white.
GREYS = np.linspace(0, 65535, 100).astype(np.uint16).reshape(10, 10)


def write(folder: Path, kind: str) -> Path:
    """The grey levels in a file of some kind."""
    path = folder / f"grey.{kind.split('-')[0]}"
    if kind == "pgm":
        path.write_bytes(b"P5 10 10 65535\n" + GREYS.astype(">u2").tobytes())
    elif kind == "tif-big":
        Image.frombytes("I;16B", (10, 10), GREYS.astype(">u2").tobytes()).save(path)
    elif kind == "tif-inverted":
        Image.fromarray(65535 - GREYS).save(path, tiffinfo={262: 0})
    elif kind == "png-colour":
        rows = np.repeat(GREYS[..., None], 3, axis=2).astype(">u2")
        data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
        parts = [(b"IHDR", struct.pack(">IIBBBBB", 10, 10, 16, 2, 0, 0, 0)), (b"IDAT", data), (b"IEND", b"")]
        chunks = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts]
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    else:
        Image.fromarray(GREYS).save(path)
    return path


@pytest.mark.parametrize("kind", ["png", "tif", "tif-big", "tif-inverted", "pgm", "png-colour"])
def test_sixteen_bits_keep_their_upper_eight(tmp_path: Path, kind: str) -> None:
    found = np.asarray(open_picture(write(tmp_path, kind)))
    assert found.dtype == np.uint8 and found.shape == (10, 10, 3)
    assert np.array_equal(found[..., 0], GREYS >> 8) and len(np.unique(found)) == 100


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_grey_levels_of_unknown_range_are_refused(tmp_path: Path, kind: type) -> None:
    path = tmp_path / "grey.tif"
    Image.fromarray(GREYS.astype(kind)).save(path)
    with pytest.raises(DataError, match=r"grey\.tif has grey levels as .* save it with 8 or 16 bits"):
        open_picture(path)


def test_a_photo_that_was_held_sideways_comes_upright(tmp_path: Path) -> None:
    photo = Image.new("RGB", (40, 20), (255, 0, 0))
    photo.paste((0, 0, 255), (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # the right side is at the top
    photo.save(tmp_path / "phone.png", exif=exif)
    found = open_picture(tmp_path / "phone.png")
    assert found.size == (20, 40)
    assert found.getpixel((10, 5)) == (0, 0, 255) and found.getpixel((10, 35)) == (255, 0, 0)


def test_sixteen_bits_and_sideways(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(GREYS[:5]).save(tmp_path / "scan.png", exif=exif)
    found = np.asarray(open_picture(tmp_path / "scan.png"))[..., 0]
    assert np.array_equal(found, np.rot90(GREYS[:5] >> 8, -1))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_other_modes_are_what_pillow_and_the_processors_make_of_them(tmp_path: Path, mode: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (12, 9, 4), dtype=np.uint8)
    ending = "tif" if mode == "CMYK" else "png"
    Image.fromarray(noise, "RGBA").convert("RGB").convert(mode).save(tmp_path / f"noise.{ending}")
    with Image.open(tmp_path / f"noise.{ending}") as stored:
        wanted = np.asarray(stored.convert("RGB"))
    assert np.array_equal(np.asarray(open_picture(tmp_path / f"noise.{ending}")), wanted)


def test_a_palette_with_transparency_says_nothing(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    picture = Image.new("P", (8, 8), 1)
    picture.putpalette([0, 0, 0, 200, 30, 30])
    picture.save(tmp_path / "sign.png", transparency=b"\xff\x40")
    assert open_picture(tmp_path / "sign.png").getpixel((3, 3)) == (200, 30, 30)
    assert not recwarn.list


@pytest.mark.parametrize("size", [(LONGEST_SIDE + 1, 200), (30, 30 * 201), (19_000, 19_000)])
def test_a_few_bytes_that_would_fill_the_memory(tmp_path: Path, size: tuple[int, int]) -> None:
    """A header alone: whoever decodes it first is too late."""
    path = tmp_path / "bomb.png"
    parts = [(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    chunks = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    with pytest.raises(DataError, match=r"bomb\.png"):
        open_picture(path)


def test_a_format_that_starts_a_program_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "page.eps"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n")
    with pytest.raises(DataError, match=r"cannot read the picture .*page\.eps"):
        open_picture(path)
