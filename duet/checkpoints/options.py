"""Loading options shared by all families; a family may add its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from duet.errors import UserError, suggest

if TYPE_CHECKING:
    import torch
    from transformers import BitsAndBytesConfig


class LoadOptions(TypedDict, total=False):
    """Keyword arguments of every family's `load`; None is the same as leaving one out.

    Attributes:
        dtype: dtype of the weights; None: the checkpoint's on an accelerator, float32 on a CPU.
        device: device of the model; None: the accelerator if there is one.
        device_map: accelerate's map, instead of `device`.
        attn_implementation: `sdpa`, `eager`, `flash_attention_2`; None: transformers' choice.
        revision: branch, tag or commit on the hub.
        quantization_config: transformers' settings for 8-bit or 4-bit weights.
    """

    dtype: torch.dtype | str | None
    device: str | torch.device | None
    device_map: str | dict[str, Any] | None
    attn_implementation: str | None
    revision: str | None
    quantization_config: BitsAndBytesConfig | None


class OriginalOptions(LoadOptions, total=False):
    """Options of families that also have an original layout.

    Attributes:
        model_base: original layout: the language model for a checkpoint that holds only a projector or LoRA.
    """

    model_base: str | Path | None


def check_options(options: Mapping[str, Any], known: type[Mapping[str, Any]]) -> None:
    """Check keyword arguments against the `TypedDict` that declares them.

    Raises:
        UserError: one of them is unknown; the message suggests the nearest ones.
    """
    names = list(known.__annotations__)
    for name in options:
        if name not in names:
            raise UserError(f"unknown loading option {name!r}; {suggest(name, names)}")
