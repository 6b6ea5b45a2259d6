"""What is read as a video: by its ending, or an animated GIF."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from duet.data.media import is_video, open_medium
from duet.data.rows import DataError
from duet.types import Clip

SHADES = (30, 110, 190, 250)


def gif(path: Path, frames: int) -> Path:
    pictures = [Image.new("L", (80, 64), shade) for shade in SHADES[:frames]]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100)
    return path


@pytest.mark.parametrize(("name", "expected"), [("a.mp4", True), ("a.MKV", True), ("a.jpg", False), ("a", False)])
def test_by_ending(name: str, expected: bool, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"no matter what is in it")
    assert is_video(path) is expected


def test_an_animated_gif_is_a_video(tmp_path: Path) -> None:
    pytest.importorskip("av")
    path = gif(tmp_path / "moving.gif", 4)
    assert is_video(path)
    lengths: list[float] = []
    clip = open_medium(path, lambda seconds: lengths.append(seconds) or 4)
    assert isinstance(clip, Clip) and clip.total == 4
    assert lengths == [pytest.approx(0.4, abs=0.05)] and clip.seconds == pytest.approx([0, 0.1, 0.2, 0.3], abs=0.02)
    assert [int(frame.mean()) for frame in clip.frames] == pytest.approx(SHADES, abs=3)


def test_a_still_gif_is_a_picture(tmp_path: Path) -> None:
    picture = open_medium(gif(tmp_path / "still.gif", 1), lambda _: 8)
    assert isinstance(picture, Image.Image) and picture.mode == "RGB"


def test_a_picture_that_pillow_takes_for_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "vast.png"
    Image.new("L", (64, 64)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match=r"vast\.png"):
        open_medium(path, lambda _: 8)


def test_a_file_that_is_neither(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("nothing to see")
    with pytest.raises(DataError, match=r"notes\.txt"):
        open_medium(path, lambda _: 8)
