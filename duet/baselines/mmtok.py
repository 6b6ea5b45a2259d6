"""MMTok (ICLR 2026): patches that cover both the words of the question and the other patches.

Code: Ironieser/MMTok @ d1522cd, `mmtok/core/semantic_selector.py::mm_coverage_selection`. Released: greedy maximum
coverage of two kinds of rows. A word's row is the softmax over patches of its cosine with the projected features, a
patch's row that of its cosines of tower features; all words together weigh 1, all patches 0.5. Words are those of the
user's turn in the language model's embedding table; see `duet.text.keywords` for which. Sorted, numbered anew on LLaVA.

Departs: the released option that excludes the padding of a picture is not here. A question without words leaves the
patches to cover.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from duet.ops.greedy import Coverage, everyone, greedy
from duet.ops.similarity import cosines

if TYPE_CHECKING:
    from torch import Tensor

#: Temperature over words: LLaVA's and Qwen's in the released code.
LLAVA_TEMPERATURE, QWEN_TEMPERATURE = 0.02, 0.01


def select(
    *,
    keep: int,
    features: Tensor,
    projected: Tensor,
    text_tokens: Tensor,
    text_valid: Tensor | None = None,
    text_temperature: float = LLAVA_TEMPERATURE,
    vision_temperature: float = 0.2,
    vision_weight: float = 0.5,
) -> Tensor:
    """The patches that cover words and picture best.

    Args:
        keep: K.
        features: `[B, N, D]` of the tower.
        projected: `[B, N, P]`.
        text_tokens: `[B, M, P]` embeddings of the question's words; M may be 0.
        text_valid: `[B, M]` bool, False at padding; None for all.
        text_temperature, vision_temperature: of the two softmaxes.
        vision_weight: of all patches to cover, words having 1.

    Returns:
        `[B, K]` long, ascending.
    """
    cover = _rows_to_cover(
        features, projected, text_tokens, text_valid, text_temperature, vision_temperature, vision_weight
    )
    return greedy(Coverage(cover), keep, everyone(features)).sort(-1).values


def _rows_to_cover(
    features: Tensor, projected: Tensor, words: Tensor, valid: Tensor | None, hot: float, warm: float, weight: float
) -> Tensor:
    """How well each patch covers each word and each patch, `[B, N, M + N]`."""
    patches = (cosines(features) / warm).softmax(1) * (weight / features.shape[1])
    named = (cosines(projected, words) / hot).softmax(1)
    if valid is None:
        named = named / max(words.shape[1], 1)
    else:
        named = named * valid[:, None] / valid.sum(-1).clamp_min(1)[:, None, None]
    return torch.cat([named, patches], 2)
