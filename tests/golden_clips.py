"""Reader of tests/golden/reducers/video.safetensors, and clips to try the video methods on."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

FILE = Path(__file__).parent / "golden" / "reducers" / "video.safetensors"
RATIOS = ("0.25", "0.15", "0.1")
TOKENS = 1e-5


@cache
def tensors() -> dict[str, Tensor]:
    """12 frames of 10 x 10 tokens, and what three released codes make of them."""
    return load_file(FILE)


def clip(*names: str) -> dict[str, Tensor]:
    """The golden clip, as keyword arguments."""
    return {name: tensors()[f"input.{name}"] for name in names}


def make_clips(batch: int, frames: int, size: int, seed: int = 0) -> dict[str, Tensor]:
    """Random clips in which a third of the places moves, with a cut in the middle."""
    made = torch.Generator().manual_seed(seed)
    still = torch.randn(batch, 2, size, 16, generator=made)
    scene = (torch.arange(frames) >= frames // 2).long()
    features = still[:, scene] + 0.1 * torch.randn(batch, frames, size, 16, generator=made)
    moving = torch.rand(batch, 1, size, 1, generator=made) < 1 / 3
    features = torch.where(moving, torch.randn(batch, frames, size, 16, generator=made), features) + 0.5
    return {
        "features": features,
        "attention": torch.rand(batch, frames, size, generator=made),
        "frame_features": features.mean(2) + 0.1 * torch.randn(batch, frames, 16, generator=made),
    }
