"""The training that several files run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training import write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 training pictures, 6 held-out questions and an untrained model."""
    return write_world(tmp_path_factory.mktemp("world"), 12, 6)
