"""Small checkpoints, a picture, a video."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from duet import loading
from duet.loading import load_stock
from tests.llava_checkpoints import HF


@pytest.fixture(scope="session")
def checkpoint() -> str:
    return str(HF)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).resize((360, 240)).save(path)
    return path


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Twelve frames of noise, two seconds."""
    av = pytest.importorskip("av")
    path = tmp_path / "film.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=6)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        for seed in range(12):
            noise = np.random.default_rng(seed).integers(0, 255, (64, 96, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
        container.mux(stream.encode())
    return path


@cache
def _load(path: str, **options: Any) -> tuple[Any, Any]:
    return load_stock(path, **options)


@pytest.fixture(autouse=True)
def load_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that name the same checkpoint get the same model; each attaches what it needs anew."""
    monkeypatch.setattr(loading, "load_stock", _load)
