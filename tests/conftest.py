"""For all tests: every family's tiny model; hypothesis without time limits, since torch's first call is slow; a quiet
DeepSpeed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import settings

if TYPE_CHECKING:
    from tests.families import Family

if not torch.cuda.is_available():
    # where DeepSpeed is installed, it would print on import that it found no GPU
    os.environ.setdefault("DS_ACCELERATOR", "cpu")

settings.register_profile("duet", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("duet")

#: Of `tests.families`, whose import takes seconds.
FAMILIES = ("llava", "llava_next", "videollava", "qwen2_5_vl", "qwen2_vl", "qwen3_vl")


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    """Each family."""
    from tests import families

    assert tuple(families.FAMILIES) == FAMILIES
    return families.FAMILIES[request.param]


@pytest.fixture
def no_grad() -> Iterator[None]:
    """Without gradients."""
    with torch.no_grad():
        yield
