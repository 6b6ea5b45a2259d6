"""All private upstream names that the project uses, in one place (tested with transformers 5.17 and 5.23).

transformers:

* `capture_outputs`, `merge_with_config_defaults`: the decorators of every stock `forward`, used on the reduced one too,
  so that `output_hidden_states`, `use_cache` defaults and `return_dict` keep their meaning.
* `create_causal_mask(layer_idx=...)`: sizes the mask by one layer's cache, for caches whose layers differ in length.
* `_get_num_multimodal_tokens`: the number of placeholders that a processor will write, without opening a picture.
* `_weight_conversions`, `_no_split_modules`: the renamings that a model was loaded with, and layers that stay whole.
* `_commit_hash`, `_attn_implementation`: a config's origin and its attention implementation.
* `_gradient_checkpointing_func`: how a layer is checkpointed, a partial of torch's `checkpoint`.
* `_active_collector`: the outputs of layers that a call collects.
* `_default_compile_config`, `_compile_all_devices`: how and where `generate` compiles.
* Steps of `generate` that an attached model replaces (`generation.py`): `GENERATE`.

accelerate: the device on which a hooked module computes, and its handling of `forward`.

torch: `_dynamo.mark_static_address`, as transformers marks its static caches; `_is_replica` marks the
copies of `nn.DataParallel`; `_modules` holds the parts of a module.

`tests/duet/engine/test_compat.py` enforces this.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import copy
from functools import partial
from typing import Any

import torch
from transformers import CompileConfig
from transformers.masking_utils import create_causal_mask
from transformers.utils import output_capturing
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

__all__ = [
    "GENERATE",
    "aligned",
    "attention_backend",
    "capture_outputs",
    "capturing",
    "checkpoints_reentrantly",
    "commit_hash",
    "compile_options",
    "count_image_tokens",
    "create_causal_mask",
    "everywhere",
    "execution_device",
    "forget_renamings",
    "forward_slot",
    "is_partitioned",
    "is_replica",
    "keep_address",
    "merge_with_config_defaults",
    "not_capturing",
    "on_one_device",
    "own_step",
    "shadow",
    "stock_step",
    "uncollected",
    "unsplit_layers",
]

#: Our name of a step of `generate` -> the method of transformers.
GENERATE = {
    "encodes first": "_supports_mm_encoder_outputs",
    "repeat rows": "_expand_inputs_for_generation",
    "guess tokens": "_get_candidate_generator",
    "make cache": "_prepare_cache_for_generation",
    "may compile": "_valid_auto_compile_criteria",
    "number tokens": "_prepare_position_ids_for_generation",
}


def own_step(model: Any, step: str, function: Callable[..., Any] | None) -> None:
    """Replace a step of `generate` on one instance by `function(model, ...)`; None restores the stock method.

    Uses a `partial`: a bound method would be pickled by a name that its class does not have.
    """
    name = GENERATE[step]
    if function is not None:
        setattr(model, name, partial(function, model))
    elif name in vars(model):
        delattr(model, name)


def stock_step(model: Any, step: str) -> Callable[..., Any]:
    """The class's method of a step, static or not (transformers 5.17 has static ones), bound to the instance."""
    return inspect.getattr_static(type(model), GENERATE[step]).__get__(model, type(model))


def shadow(model: Any) -> Any:
    """A shallow copy of a model with shallow copies of its parts: attributes set on them do not reach the original."""
    twin = copy(model)
    twin._modules = {name: copy(module) for name, module in model._modules.items()}
    return twin


def count_image_tokens(processor: Any, sizes: Sequence[tuple[int, int]]) -> list[int]:
    """Number of placeholders that a processor writes for each picture of `(height, width)` pixels."""
    return processor._get_num_multimodal_tokens(image_sizes=sizes)["num_image_tokens"] if sizes else []


def commit_hash(config: Any) -> str | None:
    """The commit on the hub that a config was read from; None for a folder."""
    return getattr(config, "_commit_hash", None)


def capturing() -> bool:
    """Whether the outputs of layers are collected now (`output_hidden_states`, `output_attentions`)."""
    return bool(output_capturing._active_collector.get())


@contextmanager
def not_capturing() -> Iterator[None]:
    """Collect no outputs of layers inside the block."""
    token = output_capturing._active_collector.set(None)
    try:
        yield
    finally:
        output_capturing._active_collector.reset(token)


def uncollected(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, to be compiled: the hooks that collect outputs of layers, which the first stock call leaves on
    a model, are off inside it.
    """

    def run(*args: Any) -> Any:
        token = output_capturing._active_collector.set(None)
        try:
            return function(*args)
        finally:
            output_capturing._active_collector.reset(token)

    return run


def compile_options(model: Any, compile_config: Any) -> dict[str, Any]:
    """What `generate` hands to `torch.compile`, for its `compile_config` or None."""
    return (compile_config or model._default_compile_config()).to_dict()


def everywhere(options: dict[str, Any]) -> CompileConfig:
    """The setting with which `generate` compiles on every device, with these options of `torch.compile`."""
    config = CompileConfig(**options)
    config._compile_all_devices = True  # type: ignore[assignment]
    return config


def keep_address(value: torch.Tensor) -> None:
    """Tell compiled code that a tensor stays where it is, so a CUDA graph writes to it in place."""
    torch._dynamo.mark_static_address(value)


def attention_backend(config: Any) -> str:
    """`sdpa`, `eager`, `flash_attention_2`, ..."""
    return config._attn_implementation


def checkpoints_reentrantly(layer: Any) -> bool:
    """Whether a layer's forward now runs in a reentrant checkpoint, where only positional arguments get gradients."""
    if not (getattr(layer, "gradient_checkpointing", False) and layer.training):
        return False
    keywords = getattr(getattr(layer, "_gradient_checkpointing_func", None), "keywords", None) or {}
    return bool(keywords.get("use_reentrant", False))


def forget_renamings(model: Any) -> None:
    """Save a model under the stock names of its class, whatever renamings are noted from its loading."""
    model._weight_conversions = None


def unsplit_layers(model: Any) -> tuple[str, ...]:
    """Names of the classes of layers that are moved or sharded as one."""
    return tuple(model._no_split_modules or ())


def execution_device(module: Any) -> torch.device | None:
    """The device on which accelerate runs a module (`device_map`, offloading); None without its hooks."""
    hook = getattr(module, "_hf_hook", None)
    given = [getattr(part, "execution_device", None) for part in getattr(hook, "hooks", [hook])]
    devices = [device for device in given if device is not None]
    return torch.device(devices[-1]) if devices else None


def forward_slot(module: Any) -> str:
    """The attribute that holds a module's own forward: accelerate's hooks replace `forward` and call another one."""
    return "_old_forward" if hasattr(module, "_hf_hook") else "forward"


def aligned(module: Any) -> AbstractContextManager[Any]:
    """Inside the block the module's own parameters are in memory, even if accelerate has offloaded them."""
    if not any(parameter.is_meta for parameter in module.parameters(recurse=False)):
        return nullcontext()
    from accelerate.utils import align_module_device

    return align_module_device(module)


def on_one_device(module: Any) -> bool:
    """Whether accelerate moves nothing of a module between devices, or from the host."""
    return not any(hasattr(part, "_hf_hook") for part in module.modules())


def is_partitioned(module: Any) -> bool:
    """Whether each process holds a part of the module's weights (ZeRO-3, FSDP2)."""
    return any(hasattr(value, "ds_id") or hasattr(value, "device_mesh") for value in module.parameters())


def is_replica(module: Any) -> bool:
    """Whether `nn.DataParallel` made this copy."""
    return getattr(module, "_is_replica", False)
