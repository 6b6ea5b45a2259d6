"""Put the pixels of several prompts into one batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def join_pixels(values: Sequence[Tensor]) -> Tensor:
    """One argument about pictures or videos, of all prompts one behind the other.

    Pictures of fewer crops than others, `[P, crops, 3, H, W]`, are filled up with empty ones, as the processor does.
    """
    if values[0].ndim == 5:
        crops = max(value.shape[1] for value in values)
        pad = torch.nn.functional.pad
        values = [pad(value, (0, 0) * 3 + (0, crops - value.shape[1])) for value in values]
    return torch.cat(list(values))
