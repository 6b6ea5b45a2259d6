"""`duet viz` on a small checkpoint: a picture comes out for every kind of method, mistakes come before the model."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from duet.cli.main import main

#: Real pictures, other people's, so not in the repository.
MEDIA = Path(os.environ.get("DUET_MEDIA", Path(__file__).parents[4] / "shared" / "media"))


def viz(picture: Path, checkpoint: str, output: Path, *more: str) -> int:
    words = ["viz", str(picture), "What is it?", "--model", checkpoint, "-o", str(output), "--max-new-tokens", "2"]
    return main([*words, "--device", "cpu", *more])


@pytest.mark.parametrize("method", ["duet", "duet_c_s", "visionzip", "pyramiddrop"])
def test_it_draws(method: str, picture: Path, checkpoint: str, tmp_path: Path) -> None:
    output = tmp_path / "kept.png"
    assert viz(picture, checkpoint, output, "--method", method) == 0
    with Image.open(output) as drawn:
        colours = drawn.convert("RGB").getcolors(1 << 24)
        assert drawn.width > 1000 and drawn.height > 700
    assert colours is not None and len(colours) > 5000


def test_two_pictures_and_kept_positions(picture: Path, checkpoint: str, tmp_path: Path) -> None:
    output = tmp_path / "two.png"
    words = ["viz", str(picture), str(picture), "Same?", "--model", checkpoint, "-o", str(output), "--device", "cpu"]
    assert main([*words, "--max-new-tokens", "2", "--positions", "keep", "--text-guidance", "attention"]) == 0
    with Image.open(output) as drawn:
        assert drawn.height > 1500


def test_a_photograph(checkpoint: str, tmp_path: Path) -> None:
    photograph = MEDIA / "images" / "desert.jpg"
    if not photograph.exists():
        pytest.skip(f"no {photograph}; set DUET_MEDIA to a folder with images/")
    assert viz(photograph, checkpoint, tmp_path / "kept.png") == 0


def test_mistakes(picture: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for output, more, message in (
        (tmp_path / "kept.jpeg2", [], ".jpeg2"),
        (tmp_path / "no" / "kept.png", [], "no such folder"),
        (tmp_path / "kept.png", ["--method", "none"], "nothing to draw"),
    ):
        assert viz(picture, checkpoint, output, *more) == 2
        assert message in capsys.readouterr().err
