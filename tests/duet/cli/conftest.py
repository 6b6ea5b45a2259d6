"""A small checkpoint of LLaVA-1.5's shape, and a picture."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import duet
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


@cache
def _load(path: str, **loading: Any) -> tuple[Any, Any]:
    from duet.registry import load

    return load(path, **loading)


@pytest.fixture(autouse=True)
def load_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that name the same checkpoint get the same model; each attaches what it needs anew."""
    monkeypatch.setattr(duet, "load", _load)
