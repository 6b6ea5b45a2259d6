"""Collate encoded prompts into a batch, for asking, serving, evaluation and training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

IGNORED = -100

#: Arguments with one entry per token, and their value at padding; None: the tokenizer's pad id.
PER_TOKEN = {"input_ids": None, "attention_mask": 0, "mm_token_type_ids": 0, "labels": IGNORED}


def collate(rows: Sequence[Mapping[str, Any]], pad_token_id: int, side: str = "left") -> dict[str, Tensor]:
    """Pad prompts to one length, and concatenate their pictures and videos.

    Args:
        rows: one prompt each, as a processor or a data set makes it: `input_ids [T_i]` or `[1, T_i]`, maybe
            `attention_mask`, `mm_token_type_ids` and `labels` of the same shape, and everything about its pictures.
            Rows with and without pictures may be mixed.
        pad_token_id: fills `input_ids`; the mask is 0 there, labels are ignored.
        side: `left` to generate, `right` to train.

    Returns:
        `input_ids`, `attention_mask` and other per-token arguments `[B, T]`; `pixel_values [P, 3, H, W]` (crops:
        `[P, crops, 3, H, W]`) if there are pictures, `pixel_values_videos [V, frames, 3, H, W]` if there are
        videos.
    """
    if side not in ("left", "right"):
        raise ValueError(f"side is {side!r}; choose left or right")
    lengths = [row["input_ids"].shape[-1] for row in rows]
    width = max(lengths)
    batch: dict[str, Tensor] = {}
    for name in dict.fromkeys(key for row in rows for key in row):
        values = [row[name] for row in rows if name in row]
        if name not in PER_TOKEN:
            batch[name] = join_pixels(name, values)
            continue
        filling = pad_token_id if name == "input_ids" else PER_TOKEN[name]
        batch[name] = torch.stack([_pad(value.reshape(-1), width, filling, side) for value in values])
    if "attention_mask" not in batch:
        batch["attention_mask"] = torch.stack([_pad(torch.ones(n, dtype=torch.long), width, 0, side) for n in lengths])
    return batch


def join_pixels(name: str, given: Sequence[Any]) -> Tensor:
    """One argument about pictures or videos, concatenated over the prompts.

    Args:
        name: of the argument. `pixel_values` of pictures with fewer crops than others, `[P, crops, 3, H, W]`, are
            padded with empty ones, as the processor does; videos with fewer frames are not.
        given: of each prompt. Frame times may be lists (Qwen's processor).
    """
    values = [torch.as_tensor(value) for value in given]
    if name == "pixel_values" and values[0].ndim == 5:
        crops = max(value.shape[1] for value in values)
        pad = torch.nn.functional.pad
        values = [pad(value, (0, 0) * 3 + (0, crops - value.shape[1])) for value in values]
    return torch.cat(values)


def _pad(values: Tensor, width: int, filling: int | None, side: str) -> Tensor:
    missing = width - len(values)
    return torch.nn.functional.pad(values, (missing, 0) if side == "left" else (0, missing), value=filling)
