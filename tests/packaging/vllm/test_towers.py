"""Towers in vLLM's shape, with fused projections, give `duet.backbones` what transformers' towers give it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from duet.backbones import clip
from duet_vllm.towers import ClipTower
from tests.tiny_llava import tiny_llava


class Fused(nn.Module):
    """A CLIP layer of transformers as vLLM has it: one projection for q, k and v, a bias beside the result."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.inner, self.layer_norm1 = layer, layer.layer_norm1
        own = layer.self_attn
        parts = [own.q_proj, own.k_proj, own.v_proj]
        weight, bias = torch.cat([one.weight for one in parts]), torch.cat([one.bias for one in parts])
        self.self_attn = SimpleNamespace(
            embed_dim=own.embed_dim,
            num_heads=own.num_heads,
            head_dim=own.head_dim,
            scale=own.scale,
            qkv_proj=lambda x: (nn.functional.linear(x, weight, bias), None),
        )

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.inner(hidden, None)


class Vision(nn.Module):
    """A CLIP tower of transformers as vLLM has it."""

    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.config, self.embeddings, self.pre_layrnorm = tower.config, tower.embeddings, tower.pre_layrnorm
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList([Fused(layer) for layer in tower.encoder.layers])


@pytest.mark.parametrize("pictures", [2, clip.CHUNK + 3])
@torch.no_grad()
def test_clip(pictures):
    tower = tiny_llava().model.vision_tower
    size = tower.config.image_size
    pixels = torch.randn(pictures, 3, size, size, generator=torch.Generator().manual_seed(0))
    stock = clip.encode_in_chunks(tower, pixels, -2, clip.PROVIDES)
    ours = clip.encode_in_chunks(ClipTower(Vision(tower)), pixels, -2, clip.PROVIDES)
    for name in ("features", "cls", "keys", "wide_keys_last"):
        torch.testing.assert_close(getattr(ours, name), getattr(stock, name), rtol=1e-5, atol=1e-5)
    assert ours.scores.keys() == stock.scores.keys() and ours.grid == stock.grid
    for name, score in stock.scores.items():
        torch.testing.assert_close(ours.scores[name], score, rtol=1e-5, atol=1e-5)
    rows = torch.zeros(pictures, 2, dtype=torch.long)
    torch.testing.assert_close(ours.attention_rows(rows), stock.attention_rows(rows), rtol=1e-5, atol=1e-5)
