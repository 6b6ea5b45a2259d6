"""Load Qwen2.5-VL or Qwen2-VL: `load(path_or_id) -> (model, processor)`.

The model is stock with nothing attached. Every weight has to come from the checkpoint; a missing, unexpected or wrongly
shaped one is an error that lists it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    AutoConfig,
    GenerationConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLForConditionalGeneration,
)

from duet.checkpoints.assemble import Parts, assemble
from duet.checkpoints.files import CheckpointError, read_json, read_tensors, resolve_folder, weight_files
from qwen2_5_vl.processing import read_processor

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig

ARCHITECTURES = {"qwen2_5_vl": Qwen2_5_VLForConditionalGeneration, "qwen2_vl": Qwen2VLForConditionalGeneration}


def load(
    path_or_id: str | Path,
    *,
    dtype: torch.dtype | str | None = None,
    device: str | torch.device | None = None,
    device_map: str | dict[str, Any] | None = None,
    attn_implementation: str | None = None,
    revision: str | None = None,
    quantization_config: BitsAndBytesConfig | None = None,
) -> tuple[Any, Any]:
    """Model (in eval mode) and processor.

    Args:
        path_or_id: local folder (nothing is downloaded) or hub id.
        dtype: of the weights; None: the checkpoint's own on an accelerator, float32 on a CPU.
        device: where the model goes; None: the accelerator if there is one.
        device_map: accelerate's map, in place of `device`.
        attn_implementation: `sdpa`, `eager`, `flash_attention_2`; None: transformers' choice.
        revision: branch, tag or commit on the hub.
        quantization_config: transformers' settings for 8-bit or 4-bit weights.

    Raises:
        CheckpointError: another family, incomplete or damaged; the message lists what.
    """
    folder = resolve_folder(path_or_id, revision=revision)
    family = read_json(folder / "config.json").get("model_type")
    if family not in ARCHITECTURES:
        raise CheckpointError(f"{folder} holds a model of type {family!r}; supported are {', '.join(ARCHITECTURES)}")
    generation = folder / "generation_config.json"
    parts = Parts(
        ARCHITECTURES[family],
        AutoConfig.from_pretrained(folder),
        read_tensors(weight_files(folder)),
        read_processor(folder, family),
        GenerationConfig.from_pretrained(folder) if generation.exists() else None,
    )
    placement = {
        "device_map": device_map or str(device or torch.accelerator.current_accelerator() or "cpu"),
        "attn_implementation": attn_implementation,
        "quantization_config": quantization_config,
    }
    return assemble(parts, folder, dtype, placement), parts.processor
