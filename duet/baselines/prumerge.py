"""LLaVA-PruMerge (ICCV 2025): keep the patches that CLS attends to, and merge others into them.

42Shawn/LLaVA-PruMerge @ 097c041, `clip_encoder.py`. CLS attention is that of the tower's last layer, one after the
features, from queries and keys without split heads; the softmax includes CLS, which is removed afterwards. Every kept
patch adds its 32 nearest others (cosine of the same layer's keys), kept or not, each times its attention; weights are
not normalised, and merged features are never added again. One last token is the sum of all patches that were not kept,
times their attention. Patches are in the order of their attention, and renumbered.

The released code keeps as many patches as have outlying attention (`adaptive_count`); published comparisons with a
budget of K tokens keep K - 1, as here. It counts outliers over the whole batch; here they are counted per row. The
published results at about 32 tokens come from a fine-tuned model; this one is training-free.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch.nn.functional import normalize

from duet.edit import Edit
from duet.ops.gather import take
from duet.ops.reduce import allowance
from duet.ops.select import ranked, top_and_rest
from duet.ops.similarity import exact

if TYPE_CHECKING:
    from torch import Tensor

    from duet.budget import Stage1
    from duet.types import VisionStates

#: Patches that are merged into each kept one.
NEIGHBOURS = 32


def select(*, keep: int, cls_attention: Tensor) -> Tensor:
    """The patches that CLS attends to most.

    Args:
        keep: number of patches to keep, without the extra token.
        cls_attention: `[B, N]` CLS row of the tower's last layer, heads not split, without CLS.

    Returns:
        `[B, keep]` ascending.
    """
    return top_and_rest(exact(cls_attention), keep)[0]


def adaptive_count(cls_attention: Tensor) -> Tensor:
    """Number of patches with outlying attention, above the upper quartile by 1.5 times the interquartile range.

    Args:
        cls_attention: `[B, N]`.

    Returns:
        `[B]` long: how many the released code keeps of each row at batch size 1.
    """
    values = exact(cls_attention)
    low, high = values.quantile(0.25, dim=-1), values.quantile(0.75, dim=-1)
    return (values > (high + 1.5 * (high - low))[:, None]).sum(-1)


def merge(*, features: Tensor, keys: Tensor, cls_attention: Tensor, kept: Tensor) -> Tensor:
    """Kept patches merged with their neighbours, and the token of all others.

    Args:
        features: `[B, N, D]`.
        keys: `[B, N, D]` of the tower's last layer, heads not split.
        cls_attention: `[B, N]`.
        kept: `[B, K]`, in output order; a patch may occur twice, as in the released PruMerge+.

    Returns:
        `[B, K + 1, D]`.
    """
    x, attention = exact(features), exact(cls_attention)
    near = neighbours(keys, kept)
    flat = near.flatten(1)
    sums = (take(x, flat) * take(attention, flat)[..., None]).unflatten(1, near.shape[1:]).sum(2)
    rest = others(kept, x.shape[1])
    extra = (take(x, rest) * take(attention, rest)[..., None]).sum(1, keepdim=True)
    return torch.cat([take(x, kept) + sums, extra], 1).to(features.dtype)


def neighbours(keys: Tensor, kept: Tensor) -> Tensor:
    """The patches whose keys are most similar to those of each kept one, `[B, K, min(32, N - 1)]`, nearest first."""
    tokens = keys.shape[1]
    everyone = torch.cat([kept, others(kept, tokens)], 1)
    unit = normalize(exact(keys), dim=-1)
    similarity = take(unit, kept) @ take(unit, everyone).transpose(1, 2)
    itself = torch.eye(kept.shape[1], tokens, dtype=torch.bool, device=keys.device)
    near = ranked(similarity.masked_fill(itself, -torch.inf), min(NEIGHBOURS, tokens - 1))
    return everyone.gather(1, near.flatten(1)).view_as(near)


def others(kept: Tensor, tokens: int) -> Tensor:
    """`[B, N - K]` patches that were not kept, ascending.

    For each patch that was kept twice, one of the first others is missing: the released code cuts a list of fixed
    length.
    """
    marked = torch.arange(tokens, device=kept.device).expand(len(kept), -1).scatter(1, kept, 0)
    return marked.sort(dim=-1, stable=True).values[:, kept.shape[1] :]


#: Needs of both methods: attention and keys of the layer after the features, heads not split.
ATTENTION = "wide_cls_attention_last"
NEEDS = frozenset({ATTENTION, "wide_keys_last"})


def merging(states: VisionStates, kept: Tensor) -> Edit:
    """`merge` as an edit; the last token represents the best patch among those that were not kept.

    Args:
        states: with `NEEDS`.
        kept: `[B, K]` different patches in output order, fewer than there are.
    """
    assert states.wide_keys_last is not None
    attention = exact(states.scores[ATTENTION])
    tokens, count = attention.shape[1], kept.shape[1]
    near, rest = neighbours(states.wide_keys_last, kept), others(kept, tokens)
    best = rest.gather(1, take(attention, rest).argmax(1, keepdim=True))
    source = torch.cat([near.flatten(1), rest], 1)
    slots = torch.arange(count + 1, device=kept.device)
    times = torch.tensor([near.shape[2]] * count + [rest.shape[1]], device=kept.device)
    share = torch.ones_like(attention[:, : count + 1])
    share[:, count] = 0
    return Edit(
        kept=torch.cat([kept, best], 1),
        tokens=tokens,
        source=source,
        target=slots.repeat_interleave(times).expand_as(source),
        weight=take(attention, source),
        share=share,
        contextual=count + 1,
    )


@dataclass(frozen=True)
class PruMerge:
    """Keep all but one of the budget's tokens by attention, merge, and add the token of all others."""

    needs: ClassVar[frozenset[str]] = NEEDS
    scope: ClassVar[str] = "unit"
    contextual: ClassVar[bool] = False

    def __call__(self, states: VisionStates, budget: Stage1) -> Edit:
        """Reduce each unit; patches are in the order of their attention, as released."""
        return merging(states, ranked(exact(states.scores[ATTENTION]), allowance(states, budget) - 1))
