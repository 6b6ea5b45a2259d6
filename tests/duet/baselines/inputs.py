"""Inputs of the pure functions: the stored ones that the released codes ran on, and drawn ones."""

from __future__ import annotations

from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

GOLDEN = Path(__file__).parents[2] / "golden" / "reducers"
NAMES = ("scope", "divprune", "cdpruner", "vispruner", "mmtok", "holov", "vscan", "tops", "random", "uniform", "pool")
#: Those that pick one token after the other by a set function: fewer picks are the first of more.
GREEDY = ("scope", "divprune", "cdpruner", "mmtok", "tops")


def method(name: str) -> Any:
    return import_module(f"duet.baselines.{name}")


def select(name: str, keep: int, inputs: dict[str, Tensor], **options: Any) -> Tensor:
    """`select` of a method with what it asks for by name."""
    function = method(name).select
    asked = {key: value for key, value in inputs.items() if key in signature(function).parameters}
    return function(keep=keep, **asked, **options)


def stored(name: str) -> dict[str, Tensor]:
    """Inputs `base` (24 x 24) or `odd` (14 x 25), one picture; attention summed over heads."""
    whole = load_file(GOLDEN / "image_inputs.safetensors")
    inputs = {key.removeprefix(f"{name}."): value for key, value in whole.items() if key.startswith(f"{name}.")}
    return {key: value.sum(1) if key.startswith("cls_attention") else value for key, value in inputs.items()}


def drawn(seed: int = 0, batch: int = 3, tokens: int = 24, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Random inputs: no two cosines and no two scores are near each other."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    inputs = {
        "features": normal(batch, tokens, 6) + 0.5,
        "projected": normal(batch, tokens, 9) + 0.5,
        "clip_image_embeds": normal(batch, tokens, 5),
        "clip_text_embeds": normal(batch, 2, 5),
        "text_tokens": normal(batch, 4, 9),
        "cls_attention": normal(batch, tokens).exp(),
        "cls_attention_shallow": normal(batch, tokens).exp(),
    }
    return {key: value.to(dtype) for key, value in inputs.items()}


def rows(inputs: dict[str, Tensor], index: list[int]) -> dict[str, Tensor]:
    return {key: value[index] for key, value in inputs.items()}
