"""Readers of tests/golden/qwen25vl_tiny: numbers of the original code, float32, on a tiny random Qwen2.5-VL."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

FOLDER = Path(__file__).parent / "golden" / "qwen25vl_tiny"
IMAGE, VIDEO = 505, 506
FEATURES, LOGITS = 1e-5, 1e-4


@cache
def tensors(name: str) -> dict[str, Tensor]:
    """All tensors of one golden file."""
    return load_file(FOLDER / f"{name}.safetensors")


@cache
def facts() -> dict:
    """Counts, cache lengths and positions of every tag."""
    return json.loads((FOLDER / "golden_qwen.json").read_text())


def expected(tag: str) -> dict[str, Tensor]:
    """Tensors of one tag, by the last part of their names."""
    prefix = f"{tag}.0."
    found = {name[len(prefix) :]: value for name, value in tensors("golden_qwen").items() if name.startswith(prefix)}
    return {name: value.long() if value.dtype == torch.int32 else value for name, value in found.items()}


def tiny_qwen(**kwargs) -> Qwen2_5_VLForConditionalGeneration:
    """The model, float32, in eval mode."""
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(FOLDER / "weights_hf", dtype=torch.float32, **kwargs)
    return model.eval()


def prompt() -> dict[str, Tensor]:
    """Processor output of the golden prompt."""
    data = tensors("inputs")
    ids = data["input_ids_0"][None]
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == IMAGE).int(),
        "pixel_values": data["pixel_int8_0"].float() / 64,
        "image_grid_thw": data["grid_0"],
    }
