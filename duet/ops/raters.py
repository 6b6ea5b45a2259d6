"""Text raters: the text tokens that the picture is about (SparseVLM, TOPS)."""

from __future__ import annotations

import torch
from torch import Tensor

from duet.ops.similarity import exact


def raters(
    *, visual: Tensor, text: Tensor, visual_valid: Tensor | None = None, text_valid: Tensor | None = None
) -> Tensor:
    """The text tokens that visual tokens look at more than at the average text token.

    Args:
        visual: `[B, N, D]` visual embeddings as they enter the language model.
        text: `[B, T, D]` embeddings of the tokens after the picture.
        visual_valid: `[B, N]` bool, False at padding; text_valid: `[B, T]` bool; None for all.

    Returns:
        `[B, T]` bool. All of a row's text tokens where none is above the average.
    """
    visual, text = exact(visual), exact(text)
    if text_valid is None:
        text_valid = torch.ones_like(text[..., 0], dtype=torch.bool)
    if visual_valid is None:
        visual_valid = torch.ones_like(visual[..., 0], dtype=torch.bool)
    logits = (visual @ text.transpose(1, 2)).masked_fill(~text_valid[:, None], -torch.inf)
    seen = torch.where(visual_valid[..., None], logits.softmax(-1), 0).sum(1) / visual_valid.sum(-1, keepdim=True)
    mean = seen.masked_fill(~text_valid, 0).sum(-1, keepdim=True) / text_valid.sum(-1, keepdim=True)
    above = (seen > mean) & text_valid
    return torch.where(above.any(-1, keepdim=True), above, text_valid)
