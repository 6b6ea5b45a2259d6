"""Small LLaVA-NeXT checkpoints of both layouts, made from the golden LLaVA-1.5 and a newline."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration

from tests import golden_llava as golden
from tests.llava_checkpoints import HF, ORIGINAL, copy_of, edit_json, edit_tensors

#: Width and height in the original's order; heights first in transformers.
PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
NEWLINE = 7.0
SETTINGS = {
    "mm_patch_merge_type": "spatial_unpad",
    "image_aspect_ratio": "anyres",
    "image_grid_pinpoints": PINPOINTS,
}


def newline() -> Tensor:
    """The newline embedding of the golden numbers."""
    return torch.full((64,), NEWLINE)


def golden_next() -> LlavaNextForConditionalGeneration:
    """The golden LLaVA-1.5 as a LLaVA-NeXT, float32, in eval mode."""
    source = golden.tiny_llava()
    config = LlavaNextConfig(
        vision_config=source.config.vision_config,
        text_config=source.config.text_config,
        image_token_index=golden.IMAGE,
        image_grid_pinpoints=[[height, width] for width, height in PINPOINTS],
    )
    model = LlavaNextForConditionalGeneration(config)
    model.load_state_dict({**source.state_dict(), "model.image_newline": newline()})
    return model.eval()


def save_original(to: Path) -> Path:
    """The original layout (`liuhaotian/llava-v1.6-vicuna-7b`), the tower's folder next to it."""
    folder = copy_of(ORIGINAL, to)
    edit_json(folder / "config.json", **SETTINGS)
    edit_tensors(folder, model__image_newline=newline())
    return folder


def save_hf(to: Path) -> Path:
    """The Hugging Face layout (`llava-hf/llava-v1.6-vicuna-7b-hf`)."""
    folder = copy_of(HF, to)
    golden_next().save_pretrained(folder)
    settings = json.loads((folder / "processor_config.json").read_text())
    settings |= {"processor_class": "LlavaNextProcessor", "patch_size": 14, "num_additional_image_tokens": 1}
    images = {**settings["image_processor"], "image_processor_type": "LlavaNextImageProcessor"}
    images |= {"do_pad": True, "image_grid_pinpoints": [[height, width] for width, height in PINPOINTS]}
    (folder / "processor_config.json").write_text(json.dumps({**settings, "image_processor": images}))
    return folder
