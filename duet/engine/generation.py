"""Three adjustments to `generate` of an attached model.

* From transformers 5.23 on, `generate` encodes pictures before the prefill and hands over finished features, which
  leaves no room for a reduction. Attached models say that they can't take them, so that the pixels arrive.
* Beams and returned sequences repeat prompt rows; pictures have to follow their row, whatever its number of pictures.
* Every forward of a prompt is told how long the prompt is, so that tokens generated behind it never vote: without a
  cache each step runs the prompt again, and assisted decoding appends its guesses to it.
"""

from __future__ import annotations

import inspect
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor

#: Argument of every forward of an attached model: `[B]`, real tokens of each row's prompt.
PROMPT_LENGTHS = "prompt_lengths"
_OVERRIDES = ("_supports_mm_encoder_outputs", "_expand_inputs_for_generation", "_get_candidate_generator")


def adjust_generate(model: Any) -> None:
    """Install the adjustments on one instance."""
    model._supports_mm_encoder_outputs = MethodType(_encodes_itself, model)
    model._expand_inputs_for_generation = MethodType(_expand_inputs, model)
    model._get_candidate_generator = MethodType(_candidates, model)


def restore_generate(model: Any) -> None:
    """Take them off again."""
    for name in _OVERRIDES:
        delattr(model, name)


def _encodes_itself(self: Any) -> bool:
    return False


def _stock(self: Any, name: str) -> Any:
    """The method of the class, static or not (transformers 5.17 has static ones)."""
    return inspect.getattr_static(type(self), name).__get__(self, type(self))


def _candidates(self: Any, *args: Any, model_kwargs: dict[str, Any], **kwargs: Any) -> Any:
    # the assistant's own `generate` knows no such argument
    model_kwargs = {name: value for name, value in model_kwargs.items() if name != PROMPT_LENGTHS}
    return _stock(self, "_get_candidate_generator")(*args, model_kwargs=model_kwargs, **kwargs)


def _expand_inputs(
    self: Any,
    expand_size: int = 1,
    is_encoder_decoder: bool = False,
    input_ids: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor | None, dict[str, Any]]:
    attachment = self._duet
    vision, inputs = attachment.compression.vision, {**kwargs, "input_ids": input_ids}
    rows = {} if input_ids is None else vision.rows_of_pixels(attachment.body, inputs)
    pixels = {name: kwargs.pop(name) for name in rows if kwargs.get(name) is not None}
    if pixels and input_ids is not None:
        mask = kwargs.get("attention_mask")
        whole = torch.full((len(input_ids),), input_ids.shape[1], device=input_ids.device)
        kwargs[PROMPT_LENGTHS] = whole if mask is None else mask.sum(-1)
    input_ids, kwargs = _stock(self, "_expand_inputs_for_generation")(
        expand_size=expand_size, is_encoder_decoder=is_encoder_decoder, input_ids=input_ids, **kwargs
    )
    for name, values in pixels.items():
        groups = torch.arange(len(values), device=values.device).split(rows[name])
        kwargs[name] = values[torch.cat([group.repeat(expand_size) for group in groups])]
    return input_ids, kwargs
