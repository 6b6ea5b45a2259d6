"""Readers of tests/golden/videollava_tiny: numbers of the original code, float32, on a tiny random Video-LLaVA."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import VideoLlavaForConditionalGeneration

FOLDER = Path(__file__).parent / "golden" / "videollava_tiny"
HF, ORIGINAL = FOLDER / "weights_hf", FOLDER / "weights_original"
PLACEHOLDER, IMAGE, VIDEO = -200, 510, 511
FRAMES, PATCHES = 8, 256
FEATURES, LOGITS = 1e-5, 1e-4


@cache
def tensors(name: str = "golden_video") -> dict[str, Tensor]:
    """All tensors of one golden file."""
    return load_file(FOLDER / f"{name}.safetensors")


@cache
def facts() -> dict[str, Any]:
    """The JSON next to the numbers."""
    return json.loads((FOLDER / "golden_video.json").read_text())


def tiny_video_llava(**kwargs: Any) -> Any:
    """The model, float32, in eval mode."""
    return VideoLlavaForConditionalGeneration.from_pretrained(HF, dtype=torch.float32, **kwargs).eval()


def prompt() -> dict[str, Tensor]:
    """Processor output of the golden prompt: the original's 8 placeholders become 8 x 257."""
    data = tensors("inputs")
    ids = data["input_ids_0"]
    first = int((ids == PLACEHOLDER).nonzero()[0])
    slots = ids.new_full((FRAMES * (PATCHES + 1),), VIDEO)
    ids = torch.cat([ids[:first], slots, ids[first + FRAMES :]])[None]
    frames = data["video_int8_0"].float().div(64).transpose(0, 1)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values_videos": frames[None]}
