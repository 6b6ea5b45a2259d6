"""Two adjustments to `generate` of an attached model.

* From transformers 5.23 on, `generate` encodes pictures before the prefill and hands over finished features, which
  leaves no room for a reduction. Attached models say that they can't take them, so that the pixels arrive.
* Beams and returned sequences repeat prompt rows; pictures have to follow their row, whatever its number of pictures.
"""

from __future__ import annotations

from types import MethodType
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor

_OVERRIDES = ("_supports_mm_encoder_outputs", "_expand_inputs_for_generation")


def adjust_generate(model: Any) -> None:
    """Install the adjustments on one instance."""
    model._supports_mm_encoder_outputs = MethodType(_encodes_itself, model)
    model._expand_inputs_for_generation = MethodType(_expand_inputs, model)


def restore_generate(model: Any) -> None:
    """Take them off again."""
    for name in _OVERRIDES:
        delattr(model, name)


def _encodes_itself(self: Any) -> bool:
    return False


def _expand_inputs(
    self: Any,
    expand_size: int = 1,
    is_encoder_decoder: bool = False,
    input_ids: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor | None, dict[str, Any]]:
    pixels = kwargs.pop("pixel_values", None)
    if pixels is not None and input_ids is not None:
        rows = self._duet.compression.adapter.pictures_per_row(self._duet.body, input_ids)
        groups = torch.arange(len(pixels)).split(rows)
        order = torch.cat([group.repeat(expand_size) for group in groups])
        pixels = pixels if expand_size == 1 else pixels[order.to(pixels.device)]
    input_ids, kwargs = type(self)._expand_inputs_for_generation(
        self, expand_size=expand_size, is_encoder_decoder=is_encoder_decoder, input_ids=input_ids, **kwargs
    )
    return input_ids, kwargs if pixels is None else {**kwargs, "pixel_values": pixels}
