"""The optimizers of measured training steps. Their rate is 0, so all configurations go on from the same weights."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch

from duet.errors import UserError

if TYPE_CHECKING:
    from torch import nn

#: Name -> bytes of state per weight of `size` bytes.
STATES = {"adamw8bit": lambda size: 2, "adamw": lambda size: 2 * size, "sgd": lambda size: 0}
OPTIMIZERS = ("auto", *STATES, "none")
#: Share of a card for weights, gradients and states; activations take the rest.
SHARE = 0.6


def choose_optimizer(model: nn.Module, wanted: str) -> str:
    """`auto`: the first of AdamW with 8-bit states (where bitsandbytes is installed), AdamW and SGD that fits the card.

    Args:
        model: with the weights that are trained.
        wanted: one of `OPTIMIZERS`.

    Raises:
        UserError: `adamw8bit` without bitsandbytes or without a GPU.
    """
    device = next(model.parameters()).device
    has_8bit = device.type == "cuda" and find_spec("bitsandbytes") is not None
    if wanted == "adamw8bit" and not has_8bit:
        raise UserError("--optimizer adamw8bit needs a GPU and bitsandbytes, which is not here: use adamw or sgd")
    if wanted != "auto":
        return wanted
    if device.type != "cuda":
        return "adamw"
    room = SHARE * torch.cuda.get_device_properties(device).total_memory
    return next(name for name in STATES if (name != "adamw8bit" or has_8bit) and bytes_needed(model, name) <= room)


def bytes_needed(model: nn.Module, name: str) -> float:
    """Bytes of weights, gradients and the optimizer's states; 0 for `sgd`, the last resort."""
    if name == "sgd":
        return 0
    weights = sum(one.nbytes for one in model.parameters())
    return weights + sum(
        one.numel() * (one.element_size() + STATES[name](one.element_size()))
        for one in model.parameters()
        if one.requires_grad
    )


def make_optimizer(model: nn.Module, name: str) -> Any:
    """An optimizer of the trained weights; None for `none`."""
    if name == "none":
        return None
    weights = [one for one in model.parameters() if one.requires_grad]
    if name == "adamw8bit":
        from bitsandbytes.optim import AdamW8bit

        return AdamW8bit(weights, lr=0.0)
    fused = weights[0].device.type == "cuda"
    if name == "sgd":
        return torch.optim.SGD(weights, lr=0.0, fused=fused)
    return torch.optim.AdamW(weights, lr=0.0, fused=fused)
