"""CDPruner (NeurIPS 2025): diverse patches, conditioned on the question (a determinantal point process).

Code: Theia-4869/CDPruner @ 9541616, `llava/model/llava_arch.py::encode_images`. Released: relevance is the negated
mean cosine of CLIP's patch and text embeddings, scaled to (0, 1]; negated, because CLIP's patches are least similar to
the text that they match. The kernel is relevance x cosine of projected features x relevance; greedy MAP. The question
is the whole user turn, cut into windows of 77 tokens. The weighting exp(alpha r) of the paper's ablation is commented
out. Survivors are renumbered.

Differences: minimum and maximum of the relevance are per picture; the released code takes them over the batch (the same
at batch size 1). At the rank of the kernel the released code divides by the root of rounding noise and repeats picks;
here the most relevant of the other patches follow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from duet.edit import Edit
from duet.ops.greedy import Volume, everyone, greedy
from duet.ops.reduce import allowance
from duet.ops.similarity import cosines

if TYPE_CHECKING:
    from torch import Tensor

    from duet.budget import Stage1
    from duet.types import VisionStates

#: Added to the relevance before scaling; also the smallest width of its range.
MARGIN = 1e-6


@torch.no_grad()
def select(
    *,
    keep: int,
    projected: Tensor,
    clip_image_embeds: Tensor,
    clip_text_embeds: Tensor,
    clip_text_valid: Tensor | None = None,
) -> Tensor:
    """The patches that span the largest volume; relevance is the length of a patch's vector.

    Args:
        keep: K.
        projected: `[B, N, P]`.
        clip_image_embeds: `[B, N, E]` patches in CLIP's joint space.
        clip_text_embeds: `[B, S, E]` windows of the question there; `[B, E]` for one each, `[S, E]` if B is 1.
        clip_text_valid: `[B, S]` bool, False at padding; None for all.

    Returns:
        `[B, K]` long, ascending.
    """
    texts = clip_text_embeds.reshape(len(projected), -1, clip_text_embeds.shape[-1])
    relevance = conditional_relevance(clip_image_embeds, texts, clip_text_valid)
    kernel = relevance[:, :, None] * cosines(projected) * relevance[:, None]
    return greedy(Volume(kernel, keep), keep, everyone(projected)).sort(-1).values


def conditional_relevance(patches: Tensor, texts: Tensor, valid: Tensor | None = None) -> Tensor:
    """Dissimilarity of each patch `[B, N, E]` to the texts `[B, S, E]`, from about 0 to 1 in each row: `[B, N]`."""
    like = cosines(patches, texts)
    if valid is not None:
        like = like.masked_fill(~valid[:, None], torch.nan)
    unlike = -like.nanmean(-1).nan_to_num()
    least, most = unlike.aminmax(dim=-1, keepdim=True)
    return (unlike - least + MARGIN) / (most - least).clamp_min(MARGIN)


@dataclass(frozen=True)
class CDPruner:
    """Stage 1 by `select`."""

    needs: ClassVar[frozenset[str]] = frozenset({"projected", "clip_image_embeds", "clip_text_embeds"})
    contextual: ClassVar[bool] = False
    scope: ClassVar[str] = "unit"

    def __call__(self, states: VisionStates, budget: Stage1) -> Edit:
        """Keep as many patches as the budget has tokens."""
        assert states.projected is not None
        assert states.clip_image_embeds is not None and states.clip_text_embeds is not None
        kept = select(
            keep=allowance(states, budget),
            projected=states.projected,
            clip_image_embeds=states.clip_image_embeds,
            clip_text_embeds=states.clip_text_embeds,
            clip_text_valid=states.clip_text_valid,
        )
        return Edit.keep(kept, states.features.shape[1])
