"""What the makers of all tiny models share: weights that make a difference, and padded text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def draw_weights(model: Any, pad_token_id: int, tied: bool = False) -> Any:
    """Draw all matrices so large that attention is uneven and every token matters; returns the model in eval mode.

    Args:
        model: of any family.
        pad_token_id: for its generation config.
        tied: the head is the embeddings, which are then drawn like the other matrices.
    """
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                gain = 2.5 if any(part in name for part in ("q_proj", "k_proj", "qkv")) else 1.0
                weight.normal_(std=1.0 if "embed" in name and not tied else gain / weight.shape[1] ** 0.5)
    model.generation_config.pad_token_id = pad_token_id
    return model.eval()


def pad_text(rows: Sequence[Any], pad_token_id: int, side: str, labels: bool) -> dict[str, Tensor]:
    """Token ids, mask and, if asked for, labels of rows with `ids [T]` and `labels [T]`, padded on one side."""
    longest = max(len(row.ids) for row in rows)

    def pad(values: Tensor, fill: int) -> Tensor:
        padding = values.new_full((longest - len(values),), fill)
        return torch.cat([padding, values] if side == "left" else [values, padding])

    batch = {
        "input_ids": torch.stack([pad(row.ids, pad_token_id) for row in rows]),
        "attention_mask": torch.stack([pad(torch.ones_like(row.ids), 0) for row in rows]),
    }
    if labels:
        batch["labels"] = torch.stack([pad(row.labels, -100) for row in rows])
    return batch
