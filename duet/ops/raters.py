"""Text raters: the text tokens that relate to the picture (SparseVLM, TOPS)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from duet.ops.gather import close_gaps, take
from duet.ops.similarity import exact

if TYPE_CHECKING:
    from duet.types import LayerView


def raters(
    *, visual: Tensor, text: Tensor, visual_valid: Tensor | None = None, text_valid: Tensor | None = None
) -> Tensor:
    """The text tokens that get more attention from the visual tokens than the average text token does.

    Args:
        visual: `[B, N, D]` visual embeddings as they enter the language model.
        text: `[B, T, D]` embeddings of the tokens after the picture.
        visual_valid: `[B, N]` bool, False at padding; text_valid: `[B, T]` bool; None for all.

    Returns:
        `[B, T]` bool; all text tokens of a row in which none is above the average.
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


def remembered_raters(view: LayerView) -> Tensor:
    """The raters of a prompt, `[B, T]` bool, chosen at its first boundary from the input embeddings.

    Args:
        view: a view with `embeddings`. Text tokens are never dropped, so the choice stays valid at later boundaries.
    """
    text, real = close_gaps(view.text, int(view.text.sum(1).max()), left=False)
    if "raters" not in view.memory:
        assert view.embeddings is not None
        visual, seen = close_gaps(view.visual, int(view.visual.sum(1).max()), left=False)
        view.memory["raters"] = raters(
            visual=take(view.embeddings, visual),
            text=take(view.embeddings, text),
            visual_valid=seen,
            text_valid=real,
        )
    return torch.zeros_like(view.text).scatter(1, text, view.memory["raters"] & real)
