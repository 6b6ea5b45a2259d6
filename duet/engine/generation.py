"""Changes to `generate` of an attached model.

* From transformers 5.23 on, `generate` encodes pictures before the prefill and passes on finished features, too late
  for a reduction. Attached models declare that they do not accept them, so they get the pixels.
* Beams and returned sequences repeat prompt rows; each row's pictures, however many, are repeated with it.
* Every forward gets the prompt length, so tokens generated after the prompt never vote: without a cache each step runs
  the prompt again, and assisted decoding appends its guesses to it.
* Caches that cannot hold a shortened prompt are refused before they are created. `cache_implementation="static"` gives
  each layer its own fixed size (`fixed.py`); such a step compiles itself, so `generate` does not compile the model.
* The cache of a conversation counts the positions of new tokens; no such state is left on the model.
"""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from duet.engine.attachment import attached
from duet.engine.cache import ReducedCache
from duet.engine.checks import check_cache, check_fixed, check_generate, check_ids
from duet.engine.compat import GENERATE, compile_options, everywhere, own_step, shadow, stock_step
from duet.engine.fixed import FixedPlan

if TYPE_CHECKING:
    from torch import Tensor

    from duet.interfaces import VisionSide

#: Argument of every forward of an attached model: `[B]`, real tokens of each row's prompt.
PROMPT_LENGTHS = "prompt_lengths"


def adjust_generate(model: Any) -> None:
    """Install the adjustments on one instance."""
    own: dict[str, Any] = {
        "encodes first": _encodes_first,
        "repeat rows": _repeat_rows,
        "guess tokens": _guess_tokens,
        "make cache": _make_cache,
        "may compile": _may_compile,
    }
    if hasattr(model, GENERATE["number tokens"]):  # from transformers 5.2 on
        own["number tokens"] = _number_tokens
    for step, function in own.items():
        own_step(model, step, function)


def restore_generate(model: Any) -> None:
    """Remove the adjustments."""
    for step in GENERATE:
        own_step(model, step, None)


def pixels_of_rows(
    vision: VisionSide, body: Any, inputs: dict[str, Any], rows: list[int]
) -> dict[str, Tensor | list[Any]]:
    """The picture arguments for the given rows of a batch, repeated like the rows; empty without pictures.

    Args:
        vision: the model's vision side.
        body: the module without the head.
        inputs: `input_ids` and the other arguments of the prompt.
        rows: indices of prompt rows.
    """
    found: dict[str, Tensor | list[Any]] = {}
    for name, entries in vision.rows_of_pixels(body, inputs).items():
        values = inputs.get(name)
        if values is None:
            continue
        groups = torch.arange(len(values)).split(entries)
        index = torch.cat([groups[row] for row in rows])
        if len(index):
            found[name] = values[index.to(values.device)] if torch.is_tensor(values) else [values[i] for i in index]
    return found


def _encodes_first(model: Any) -> bool:
    return False


def _guess_tokens(model: Any, *args: Any, model_kwargs: dict[str, Any], **kwargs: Any) -> Any:
    # the assistant's own `generate` does not know this argument
    model_kwargs = {name: value for name, value in model_kwargs.items() if name != PROMPT_LENGTHS}
    return stock_step(model, "guess tokens")(*args, model_kwargs=model_kwargs, **kwargs)


def _make_cache(
    model: Any,
    generation_config: Any,
    model_kwargs: dict[str, Any],
    generation_mode: Any,
    batch_size: int,
    max_cache_length: int,
) -> Any:
    new = _has_pixels(model, model_kwargs) and model_kwargs.get("past_key_values") is None
    plan = None
    if new:
        check_generate(generation_config)
        kind = generation_config.cache_implementation
        if kind is None and attached(model).compiled is not None and generation_mode != "assisted_generation":
            kind = "static"
        if kind == "static":
            check_fixed(attached(model).lm.config)
            plan = FixedPlan(max(max_cache_length, generation_config.max_cache_len or 0), attached(model).steps)
            generation_config = copy(generation_config)
            generation_config.cache_implementation = None
    stock = stock_step(model, "make cache")
    made = stock(generation_config, model_kwargs, generation_mode, batch_size, max_cache_length)
    if new:
        cache: Any = model_kwargs.get("past_key_values")
        check_cache(cache)
        if plan is not None and cache is not None:
            cache.plan = plan
    return made


def _may_compile(model: Any, model_kwargs: dict[str, Any], generation_config: Any) -> bool:
    stock = stock_step(model, "may compile")
    cache: Any = model_kwargs.get("past_key_values")
    plan = getattr(cache, "plan", None)
    if plan is None:
        return stock(model_kwargs, generation_config)
    static, compiled = SimpleNamespace(is_compileable=True), attached(model).compiled
    if generation_config.compile_config is None and compiled is not None:
        generation_config = copy(generation_config)
        generation_config.compile_config = everywhere(compiled.options)
    compiles = stock({**model_kwargs, "past_key_values": static}, generation_config)
    cache.plan = replace(plan, options=compile_options(model, generation_config.compile_config) if compiles else None)
    return False


def _number_tokens(model: Any, inputs_tensor: Tensor, model_kwargs: dict[str, Any]) -> Tensor:
    cache = model_kwargs.get("past_key_values")
    if isinstance(cache, ReducedCache) and cache.prompt.shift is not None and not _has_pixels(model, model_kwargs):
        ids = model_kwargs.get("input_ids", inputs_tensor)
        seen = cache.get_seq_length()
        mask = model_kwargs.get("attention_mask")
        axes = cache.prompt.positions(ids.shape[1] + seen if mask is None else mask.shape[1], 0, mask)
        return torch.cat([axes[:1] - cache.prompt.shift[:, None], axes])
    # Qwen's stock method stores the shift on the body, where the next conversation would read it
    return stock_step(shadow(model), "number tokens")(inputs_tensor, model_kwargs)


def _repeat_rows(
    model: Any,
    expand_size: int = 1,
    is_encoder_decoder: bool = False,
    input_ids: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor | None, dict[str, Any]]:
    pixels: dict[str, Any] = {}
    if _has_pixels(model, kwargs):
        attachment = attached(model)
        check_ids(kwargs)
        assert input_ids is not None
        if expand_size > 1:
            rows = [row for row in range(len(input_ids)) for _ in range(expand_size)]
            inputs = {**kwargs, "input_ids": input_ids}
            pixels = pixels_of_rows(attachment.compression.vision, attachment.body, inputs, rows)
        mask = kwargs.get("attention_mask")
        whole = torch.full((len(input_ids),), input_ids.shape[1], device=input_ids.device)
        kwargs[PROMPT_LENGTHS] = whole if mask is None else mask.sum(-1)
    others = {name: value for name, value in kwargs.items() if name not in pixels}
    input_ids, others = stock_step(model, "repeat rows")(
        expand_size=expand_size, is_encoder_decoder=is_encoder_decoder, input_ids=input_ids, **others
    )
    return input_ids, {**others, **pixels}


def _has_pixels(model: Any, inputs: dict[str, Any]) -> bool:
    return any(inputs.get(name) is not None for name in attached(model).compression.vision.pixel_names)
