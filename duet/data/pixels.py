"""Put what several prompts show into one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def join_pixels(name: str, given: Sequence[Any]) -> Tensor:
    """One argument about pictures or videos, of all prompts one after the other.

    Args:
        name: of the argument. `pixel_values` of pictures with fewer crops than others, `[P, crops, 3, H, W]`, are
            filled up with empty ones, as the processor does; videos of fewer frames are not.
        given: of each prompt. The times of frames may come as lists (Qwen's processor).
    """
    values = [torch.as_tensor(value) for value in given]
    if name == "pixel_values" and values[0].ndim == 5:
        crops = max(value.shape[1] for value in values)
        pad = torch.nn.functional.pad
        values = [pad(value, (0, 0) * 3 + (0, crops - value.shape[1])) for value in values]
    return torch.cat(values)
