"""The cost of a budget: floating-point operations and bytes of key-value cache.

The formula counts matrix products only, a multiply-add as two operations. It leaves out norms, activations, softmax,
rotary tables and the methods' own scoring and merging. For T tokens entering a layer of width d, with q = heads x
head_dim, k = kv_heads x head_dim and m the width of the feed-forward block:

    decoder layer   2 T d (q + 2 k) + 2 T q d     query, key and value, output projections
                  + 2 x 2 T S q                   scores and values over S keys: S = T in the prefill. Counts the
                                                  whole square, including the masked half; `causal` counts only
                                                  the T (T + 1) / 2 pairs that the mask leaves
                  + 3 x 2 T d m                   SwiGLU: gate, up, down
    head            2 d vocabulary                for one position, as in generation
    tower layer     4 x 2 T d d + 4 T S d + 2 x 2 T d m      (3 matmuls in a gated block)

With all tokens the stock model runs, which runs its tower to the end (24 layers of CLIP); compression stops after the
layer that the projector reads (23).

For a generated token, T = 1 and S is the cache of the layer plus the token itself.

A frozen token costs its key and value projections, 4 d k, and its place among the keys of the others. Of the linear
work of an updated token that is 2 k / (2 q + 2 k + 3 m): 16.6 % on Vicuna-7B, 1.6 % on Qwen2.5-VL-7B.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duet.budget.backbones import Backbone, Decoder, Tower


@dataclass(frozen=True)
class Flops:
    """Operations of one prompt; `decode` is for one generated token and is not in the total."""

    tower: int
    projector: int
    prefill: int
    decode: int

    @property
    def total(self) -> int:
        """Up to the first answer token."""
        return self.tower + self.projector + self.prefill


def count_flops(
    backbone: Backbone,
    visual: Sequence[int],
    entered: int,
    text: int,
    *,
    updated: Sequence[int] | None = None,
    stock: bool = False,
    causal: bool = False,
) -> Flops:
    """Operations of a prompt.

    Args:
        backbone: sizes.
        visual: visual tokens that enter each decoder layer.
        entered: visual tokens that are projected (if the projector runs after stage 1).
        text: text tokens of the prompt, those before and after the picture together.
        updated: those of `visual` that each layer updates; None for all. The others are frozen.
        stock: nothing is compressed, so the tower runs to its end.
        causal: count only the unmasked part of the prefill's scores, as sdpa's kernels compute it; of frozen tokens
            as if the picture came first.
    """
    decoder = backbone.decoder
    tokens = [text + count for count in visual]
    frozen = [0] * len(tokens) if updated is None else [a - b for a, b in zip(visual, updated, strict=True)]
    head = 2 * decoder.width * decoder.vocabulary
    tower = replace(backbone.tower, layers=backbone.tower.layers + stock * backbone.tower.unread, unread=0)
    projected = backbone.full if backbone.projects_first else entered
    return Flops(
        tower=sum(tower_flops(tower, size, backbone.cls) for size in backbone.units),
        projector=projected * sum(2 * inputs * outputs for inputs, outputs in backbone.projector),
        prefill=sum(
            layer_flops(decoder, size - still, _pairs(size - still, causal) + (size - still) * still)
            + 4 * still * decoder.width * decoder.kv_heads * decoder.head_dim
            for size, still in zip(tokens, frozen, strict=True)
        )
        + head,
        decode=sum(layer_flops(decoder, 1, size + 1) for size in tokens) + head,
    )


def frozen_share(decoder: Decoder) -> float:
    """Linear operations of a frozen token in a layer, as a share of an updated one's."""
    queries, shared = decoder.heads * decoder.head_dim, decoder.kv_heads * decoder.head_dim
    return 2 * shared / (2 * queries + 2 * shared + 3 * decoder.mlp_width)


def layer_flops(decoder: Decoder, tokens: int, pairs: int) -> int:
    """One decoder layer: `tokens` enter, and attention has `pairs` query-key pairs."""
    queries = decoder.heads * decoder.head_dim
    shared = decoder.kv_heads * decoder.head_dim
    projections = 2 * tokens * decoder.width * (2 * queries + 2 * shared)
    attention = 2 * 2 * pairs * queries
    return projections + attention + 3 * 2 * tokens * decoder.width * decoder.mlp_width


def _pairs(tokens: int, causal: bool) -> int:
    return tokens * (tokens + 1) // 2 if causal else tokens**2


def tower_flops(tower: Tower, visual_tokens: int, cls: bool) -> int:
    """One picture of `visual_tokens` through `tower.layers` layers."""
    patches = visual_tokens * tower.patches_per_token
    tokens = patches + cls
    windowed = tower.layers - tower.full_layers if tower.window else 0
    keys = (tower.layers - windowed) * tokens + windowed * min(tower.window, tokens)
    linear = 2 * tokens * tower.width * (4 * tower.width + tower.mlp_matmuls * tower.mlp_width)
    embedding = 2 * patches * tower.patch_values * tower.width
    return embedding + tower.layers * linear + 2 * 2 * tokens * keys * tower.width


def count_kv_bytes(backbone: Backbone, visual: Sequence[int], text: int, bytes_per_value: int) -> tuple[int, ...]:
    """Bytes of keys and values of each decoder layer after the prefill."""
    per_token = 2 * backbone.decoder.kv_heads * backbone.decoder.head_dim * bytes_per_value
    return tuple((text + count) * per_token for count in visual)
