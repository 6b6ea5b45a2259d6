"""Tables for `duet.ops.greedy.Coverage`: how well each patch covers each patch, and each word of the question."""

from __future__ import annotations

import torch
from torch import Tensor

from duet.ops.similarity import cosines


def patches_covered(features: Tensor, temperature: float | None = None) -> Tensor:
    """How well patch n covers patch r, `[B, N, N]`.

    Args:
        features: `[B, N, D]`.
        temperature: None for plain cosines, as in SCOPE; else the softmax over the covering patches n of cosine /
            temperature, as in MMTok, so that each patch is covered by 1 in all.
    """
    like = cosines(features)
    return like if temperature is None else (like / temperature).softmax(1)


def words_covered(projected: Tensor, words: Tensor, valid: Tensor | None, temperature: float) -> Tensor:
    """How well patch n covers word m, `[B, N, M]`; the words of a question weigh 1 in all, as in MMTok.

    Args:
        projected: `[B, N, P]`.
        words: `[B, M, P]` embeddings of the question's words; M may be 0.
        valid: `[B, M]` bool, False at padding; None for all.
        temperature: of the softmax over the patches.
    """
    named = (cosines(projected, words) / temperature).softmax(1)
    if valid is None:
        return named / max(words.shape[1], 1)
    return named * valid[:, None] / valid.sum(-1).clamp_min(1)[:, None, None]


def covered_by(features: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """The kept token that covers each token best.

    Args:
        features: `[B, N, D]`.
        kept: `[B, K]` long, K >= 1; negative entries are padding.

    Returns:
        the cosine `[B, N]` to it, and its place in `kept` `[B, N]` long, the first of equal ones.
    """
    index = kept.clamp_min(0)[..., None].expand(-1, -1, features.shape[2])
    like = cosines(features, features.gather(1, index)).masked_fill((kept < 0)[:, None], -torch.inf)
    best = like.max(-1)
    return best.values, best.indices
