"""The figures of the guides can be made again from the commands that they name."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from playground.mini.draw import draw
from playground.mini.world import rng, sample_scene

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "figures" / "pipeline.py"


def test_the_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of any picture; as small as a README takes it."""
    picture, output = tmp_path / "picture.png", tmp_path / "pipeline.png"
    Image.fromarray(draw(sample_scene(rng(0, "figures", 0)))).save(picture)
    monkeypatch.setattr("sys.argv", [str(SCRIPT), str(picture), "What color is the ring?", "-o", str(output)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    with Image.open(output) as drawn:
        pixels = np.asarray(drawn.convert("RGB"))
    assert pixels.shape[1] > 1800 and output.stat().st_size < 400_000
    edges = np.concatenate([pixels[:3].ravel(), pixels[-3:].ravel(), pixels[:, :3].ravel(), pixels[:, -3:].ravel()])
    assert (edges > 250).all()  # nothing is cut off


@pytest.mark.parametrize("name", ["pipeline", "attention", "kept-all"])
def test_the_committed_ones_are_small(name: str) -> None:
    assert (ROOT / "docs" / "results" / f"{name}.png").stat().st_size < 300_000
