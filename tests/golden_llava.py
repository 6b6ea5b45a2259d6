"""Readers of tests/golden/llava15_tiny: numbers of the original code, float32, on a tiny random LLaVA-1.5."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import LlavaForConditionalGeneration

FOLDER = Path(__file__).parent / "golden" / "llava15_tiny"
PLACEHOLDER, IMAGE, PATCHES = -200, 511, 576
FEATURES, LOGITS, LOSS = 1e-5, 1e-4, 1e-5


@cache
def tensors(name: str) -> dict[str, Tensor]:
    """All tensors of one golden file."""
    return load_file(FOLDER / f"{name}.safetensors")


@cache
def facts(name: str) -> dict:
    """The JSON next to it."""
    return json.loads((FOLDER / f"{name}.json").read_text())


def tiny_llava(**kwargs) -> LlavaForConditionalGeneration:
    """The model, float32, in eval mode."""
    model = LlavaForConditionalGeneration.from_pretrained(FOLDER / "weights_hf", dtype=torch.float32, **kwargs)
    return model.eval()


def expand(ids: Tensor, fill: int = IMAGE) -> Tensor:
    """Original prompt (one placeholder) -> Hugging Face prompt (576)."""
    at = int((ids == PLACEHOLDER).nonzero()[0])
    return torch.cat([ids[:at], ids.new_full((PATCHES,), fill), ids[at + 1 :]])


def expand_labels(labels: Tensor, ids: Tensor) -> Tensor:
    """Labels in the columns of the expanded prompt."""
    at = int((ids == PLACEHOLDER).nonzero()[0])
    return torch.cat([labels[:at], labels.new_full((PATCHES,), -100), labels[at + 1 :]])


def prompt(index: int) -> dict[str, Tensor]:
    """Processor output of one golden prompt."""
    data = tensors("inputs")
    ids = expand(data[f"input_ids_{index}"])[None]
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": pixels()[index : index + 1],
    }


def pixels() -> Tensor:
    """Pixel values of the golden pictures, `[3, 3, 336, 336]`."""
    return tensors("inputs")["pixel_int8"].float() / 64


def conversation(index: int) -> dict[str, Tensor]:
    """Training sample with labels of all turns."""
    data = tensors("inputs")
    ids, labels = data[f"train_ids_{index}"], data[f"train_labels_{index}"]
    full = expand(ids)[None]
    return {
        "input_ids": full,
        "attention_mask": torch.ones_like(full),
        "labels": expand_labels(labels, ids)[None],
        "pixel_values": pixels()[index : index + 1],
    }


def salient_finder(positions: dict[int, list[int]]):
    """A finder that returns given positions, counted with one token per picture; rows are told apart by length."""

    def find(input_ids: Tensor, text: Tensor) -> Tensor:
        mask = torch.zeros_like(text)
        at = int((input_ids == IMAGE).nonzero()[0])
        for position in positions[int((input_ids != IMAGE).sum())]:
            mask[position if position < at else position + PATCHES - 1] = True
        return mask

    return find
