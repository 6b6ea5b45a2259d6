"""Options of loading that every family has; a family adds its own to them."""

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
        dtype: of the weights; None: the checkpoint's own on an accelerator, float32 on a CPU.
        device: where the model goes; None: the accelerator if there is one.
        device_map: accelerate's map, in place of `device`.
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
    """Those of families that have an original layout, too.

    Attributes:
        model_base: original layout: the language model under a checkpoint that holds only a projector or LoRA.
    """

    model_base: str | Path | None


def check_options(options: Mapping[str, Any], known: type[Mapping[str, Any]]) -> None:
    """Hold keyword arguments to the `TypedDict` that declares them.

    Raises:
        UserError: one of them is unknown; the nearest are named.
    """
    names = list(known.__annotations__)
    for name in options:
        if name not in names:
            raise UserError(f"unknown option of loading {name!r}; {suggest(name, names)}")
