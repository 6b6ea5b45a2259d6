"""Three adjustments to `generate` of an attached model.

* From transformers 5.23 on, `generate` encodes pictures before the prefill and hands over finished features, which
  leaves no room for a reduction. Attached models say that they can't take them, so that the pixels arrive.
* Beams and returned sequences repeat prompt rows; pictures have to follow their row, whatever its number of pictures.
* Assisted decoding appends guessed tokens to the prompt, where they would vote on pictures: it is refused.
"""

from __future__ import annotations

import inspect
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor

_OVERRIDES = ("_supports_mm_encoder_outputs", "_expand_inputs_for_generation", "_get_candidate_generator")


def adjust_generate(model: Any) -> None:
    """Install the adjustments on one instance."""
    model._supports_mm_encoder_outputs = MethodType(_encodes_itself, model)
    model._expand_inputs_for_generation = MethodType(_expand_inputs, model)
    model._get_candidate_generator = MethodType(_guess_tokens, model)


def restore_generate(model: Any) -> None:
    """Take them off again."""
    for name in _OVERRIDES:
        delattr(model, name)


def _encodes_itself(self: Any) -> bool:
    return False


def _stock(self: Any, name: str) -> Any:
    """The method of the class, static or not (transformers 5.17 has static ones)."""
    return inspect.getattr_static(type(self), name).__get__(self, type(self))


def _guess_tokens(self: Any, *args: Any, model_kwargs: dict[str, Any], **kwargs: Any) -> Any:
    compression = self._duet.compression
    if compression.pruner and any(model_kwargs.get(name) is not None for name in compression.adapter.pixel_names):
        raise ValueError(
            "assisted decoding would let guessed tokens vote on pictures: leave assistant_model and "
            "prompt_lookup_num_tokens out, or use a method without stage 2"
        )
    return _stock(self, "_get_candidate_generator")(*args, model_kwargs=model_kwargs, **kwargs)


def _expand_inputs(
    self: Any,
    expand_size: int = 1,
    is_encoder_decoder: bool = False,
    input_ids: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor | None, dict[str, Any]]:
    attachment = self._duet
    adapter, inputs = attachment.compression.adapter, {**kwargs, "input_ids": input_ids}
    rows = {} if input_ids is None else adapter.rows_of_pixels(attachment.body, inputs)
    pixels = {name: kwargs.pop(name) for name in rows if kwargs.get(name) is not None}
    input_ids, kwargs = _stock(self, "_expand_inputs_for_generation")(
        expand_size=expand_size, is_encoder_decoder=is_encoder_decoder, input_ids=input_ids, **kwargs
    )
    for name, values in pixels.items():
        groups = torch.arange(len(values), device=values.device).split(rows[name])
        kwargs[name] = values[torch.cat([group.repeat(expand_size) for group in groups])]
    return input_ids, kwargs
