"""M-RoPE positions of a shortened prompt: text is numbered as in the full one, survivors keep their rows and columns.

The row, column and time of each surviving token are known only after the tower has run, so they travel with its
embedding, as two digits per axis: bfloat16 holds whole numbers up to 256 exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

BASE, AXES = 128, 3
CHANNELS = 2 * AXES


@dataclass(frozen=True)
class Medium:
    """A picture or video in a prompt.

    Attributes:
        offset: its first placeholder.
        length: its placeholders.
        extent: times, rows and columns that its positions span before it was shortened.
    """

    offset: int
    length: int
    extent: tuple[int, int, int]


def write(features: Tensor, positions: Tensor) -> Tensor:
    """`[K, D + 6]`: features `[K, D]` followed by the digits of their positions `[3, K]`."""
    digits = torch.cat([positions // BASE, positions % BASE]).T
    return torch.cat([features, digits.to(features.device, features.dtype)], dim=1)


def read(embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Features `[K, D]` and positions `[3, K]` long of `write`."""
    digits = embeddings[:, -CHANNELS:].round().long().T
    return embeddings[:, :-CHANNELS], digits[:AXES] * BASE + digits[AXES:]


def number_text(tokens: int, media: Sequence[Medium]) -> tuple[Tensor, int]:
    """Positions `[3, N]` of a prompt before its pictures are encoded, and the step from columns to positions after it.

    A placeholder gets its medium's first position.

    Args:
        tokens: N, the length of the shortened prompt.
        media: in prompt order.
    """
    parts, column, position = [], 0, 0
    for medium in media:
        text = medium.offset - column
        parts.append(torch.arange(position, position + text))
        position += text
        parts.append(torch.full((medium.length,), position))
        position += max(medium.extent)
        column = medium.offset + medium.length
    parts.append(torch.arange(position, position + tokens - column))
    position += tokens - column
    return torch.cat(parts).expand(AXES, -1).clone(), position - tokens


def place(positions: Tensor, visual: Tensor, found: Sequence[Tensor], start: int) -> Tensor:
    """The prompt's positions with those of some encoded placeholders filled in.

    Args:
        positions: `[3, N]`.
        visual: `[N]` bool, the placeholders.
        found: `[3, k]` each: positions within their media of the next placeholders, in prompt order.
        start: the column from which on these placeholders lie.
    """
    if not found:
        return positions
    wanted = torch.cat(list(found), dim=1).to(positions.device)
    columns = torch.arange(len(visual), device=visual.device)
    here = columns[visual & (columns >= start)][: wanted.shape[1]]
    # a medium begins where the last word before it ends
    word = torch.where(visual, -1, columns).cummax(0).values[here]
    base = torch.where(word < 0, 0, positions[0, word.clamp_min(0)] + 1)
    positions = positions.clone()
    positions[:, here] = base + wanted
    return positions
