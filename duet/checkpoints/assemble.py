"""Build a stock model on its device from tensors and a config, or list every tensor that does not fit.

transformers initialises missing weights at random and only logs it; here that is an error. Derived buffers in old
checkpoints (`rotary_emb.inv_freq`, `position_ids`) are not weights and are left out, as in transformers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers import BitsAndBytesConfig, GenerationConfig, PreTrainedConfig, PreTrainedModel
from transformers.integrations import is_deepspeed_zero3_enabled

from duet.checkpoints.files import CheckpointError
from duet.checkpoints.options import LoadOptions
from duet.checkpoints.sanity import check_layers, check_parameters, check_vocabulary
from duet.errors import UserError
from duet.extras import need
from duet.files import blame

if TYPE_CHECKING:
    from torch import Tensor

#: Prompt length that the originals assume if config.json has no `max_sequence_length` (LLaVA@c121f04 builder.py).
CONTEXT_LENGTH = 2048
#: Most tensors that an error lists of each kind; the rest are only counted.
LISTED = 20
#: Parts that stay unquantised; the original loads its tower separately from the quantised weights.
UNQUANTISED = (
    "model.vision_tower",
    "model.image_tower",
    "model.video_tower",
    "model.multi_modal_projector",
    "lm_head",
)


@dataclass(frozen=True)
class Parts:
    """The parts of a checkpoint after reading.

    Attributes:
        architecture: class of the model.
        config: config of the model.
        tensors: by their names in that class, or older names that transformers converts.
        processor: matches the config.
        generation: None for the defaults of the config.
        shown_name: maps a tensor's name to its name in the checkpoint, for messages.
    """

    architecture: type[PreTrainedModel]
    config: PreTrainedConfig
    tensors: dict[str, Tensor]
    processor: Any
    generation: GenerationConfig | None = None
    shown_name: Callable[[str], str] = str


def assemble(parts: Parts, folder: Path, options: LoadOptions) -> Any:
    """The model in eval mode, its weights copied tensor by tensor to their device.

    Args:
        parts: the parts of the checkpoint.
        folder: named in errors, and in the model's config.
        options: the family's; only those of `LoadOptions` are used here.

    Raises:
        CheckpointError: tensors are missing, left over or have another shape.
    """
    device_map = options.get("device_map") or str(
        options.get("device") or torch.accelerator.current_accelerator(check_available=True) or "cpu"
    )
    sharded = is_deepspeed_zero3_enabled()  # every process gets its part of each weight, while it is loaded
    on_cpu = not torch.accelerator.is_available() or device_map == "cpu"
    check_vocabulary(parts.processor.tokenizer, parts.config, folder)
    check_layers(parts.config, folder)
    if not sharded:
        check_parameters(parts.architecture, parts.config, parts.tensors, folder)
    with _quiet_report(), _named(folder):
        loaded = parts.architecture.from_pretrained(
            None,
            config=parts.config,
            state_dict=parts.tensors,
            dtype=_dtype(options.get("dtype"), on_cpu, parts.tensors),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # checked below, with the list that the library's own error lacks
            device_map=None if sharded else device_map,
            attn_implementation=options.get("attn_implementation"),
            quantization_config=options.get("quantization_config"),
        )
    model, report = cast("tuple[PreTrainedModel, dict[str, Any]]", loaded)
    _check(report, folder, parts.shown_name)
    model.config.name_or_path = model.name_or_path = str(folder)  # as `from_pretrained(folder)` does
    if parts.generation is not None:
        model.generation_config = parts.generation
    return model


def _check(report: dict[str, Any], folder: Path, shown_name: Callable[[str], str]) -> None:
    found = {
        "missing": sorted(map(shown_name, report["missing_keys"])),
        "unexpected": sorted(map(shown_name, report["unexpected_keys"])),
        "wrongly shaped": sorted(
            f"{shown_name(name)} is {tuple(has)}, config.json asks for {tuple(wants)}"
            for name, has, wants in report["mismatched_keys"]
        ),
    }
    lists = []
    for kind, entries in found.items():
        if entries:
            more = [f"and {len(entries) - LISTED} more"] if len(entries) > LISTED else []
            lists.append(f"{len(entries)} {kind}: {', '.join([*entries[:LISTED], *more])}")
    if lists:
        raise CheckpointError(f"the weights in {folder} do not fit its config.json: {'; '.join(lists)}")


def _dtype(dtype: torch.dtype | str | None, on_cpu: bool, tensors: dict[str, Tensor]) -> torch.dtype:
    if isinstance(dtype, str):
        named = getattr(torch, dtype, None)
        if not isinstance(named, torch.dtype):
            raise UserError(f"dtype is {dtype!r}; choose float32, bfloat16 or float16")
        return named
    if dtype is not None:
        return dtype
    if on_cpu:
        return torch.float32
    return next((tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()), torch.float32)


@contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Name the folder in transformers' errors, except for those about a package that is not installed."""
    try:
        with blame(folder, CheckpointError):
            yield
    except CheckpointError as error:
        raise (error.__cause__ if isinstance(error.__cause__, ImportError) else error) from error.__cause__


@contextmanager
def _quiet_report() -> Iterator[None]:
    """Suppress transformers' own table of differing weights ("newly initialized"); `_check` raises instead."""

    def is_no_report(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(is_no_report)
    try:
        yield
    finally:
        logger.removeFilter(is_no_report)


def quantisation(bits: int, compute_dtype: torch.dtype | str) -> BitsAndBytesConfig:
    """Settings for 8-bit or 4-bit weights of the decoder layers, as in the original's loader.

    Raises:
        UserError: bitsandbytes is not installed.
    """
    need(f"{bits}-bit loading", "quant", "bitsandbytes")
    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=list(UNQUANTISED))
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_compute_dtype=compute_dtype,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_quant_type="nf4",
        llm_int8_skip_modules=list(UNQUANTISED),
    )


def original_options(
    load_8bit: bool,
    load_4bit: bool,
    device_map: str | dict[str, Any],
    device: str,
    use_flash_attn: bool,
    given: dict[str, Any],
) -> dict[str, Any]:
    """Translate the arguments of the original projects' `load_pretrained_model` into options of a family's `load`.

    By default the model is loaded in float16 on an accelerator, as in the original, and in float32 on a CPU.

    Args:
        load_8bit: 8-bit weights with bitsandbytes.
        load_4bit: 4-bit weights (nf4, double quantisation, as in the original).
        device_map: accelerate's map; used only if `device` is `cuda`.
        device: any other device gets the whole model.
        use_flash_attn: same as `attn_implementation="flash_attention_2"`.
        given: further arguments for `load`; `torch_dtype` is read as `dtype`.
    """
    accelerated = torch.accelerator.is_available()
    options: dict[str, Any] = {"dtype": torch.float16 if accelerated else torch.float32, **given}
    options["dtype"] = options.pop("torch_dtype", options["dtype"])
    if use_flash_attn:
        options["attn_implementation"] = "flash_attention_2"
    if load_8bit or load_4bit:
        options["quantization_config"] = quantisation(4 if load_4bit else 8, options["dtype"])
    if device != "cuda":
        options["device"] = device
    elif accelerated:
        options["device_map"] = device_map
    return options
