"""Tables for `duet.ops.greedy.Coverage`: how well each patch covers each patch, and each word of the question; and the
merging of tokens into those that cover them."""

from __future__ import annotations

import torch
from torch import Tensor

from duet.edit import NONE, Edit
from duet.ops.gather import take
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


def clusters(
    features: Tensor, index: Tensor, real: Tensor, kept: Tensor, tokens: int, sizes: Tensor | None = None
) -> Edit:
    """Keep some candidates, each as the mean of itself and of the candidates that it covers best.

    Args:
        features: `[B, T, D]`, what tokens are compared by.
        index: `[B, V]` long, the candidates; real: `[B, V]` bool, False at padding.
        kept: `[B, K]` long, those of them that stay; negative entries are padding.
        tokens: T.
        sizes: `[B, V]`, weights of the candidates in the means; None: all equal.
    """
    place = kept.clamp_min(0)
    like = cosines(take(features, index), take(features, place)).masked_fill((kept < 0)[:, None], -torch.inf)
    group = like.argmax(-1)
    joins = real & (kept >= 0).any(1, keepdim=True) & ~Edit.keep(kept, tokens).marked.gather(1, index)
    own, other = torch.ones_like(kept, dtype=like.dtype), torch.ones_like(index, dtype=like.dtype)
    if sizes is not None:
        other = sizes.to(like)
        own = other.new_ones(len(index), tokens).scatter(1, index, other).gather(1, place)
        own = own.masked_fill(kept < 0, 1)  # a column of padding stands for nothing, and 0 / 0 has no gradient
    total = own.scatter_add(1, group, other * joins)
    source = torch.where(joins, index, NONE)
    return Edit(kept, tokens, source, group, other / total.gather(1, group), own / total, kept.shape[1])
