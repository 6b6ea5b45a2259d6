"""A key-value cache whose layers hold different parts of the prompt, with a record of these parts.

All state of decoding is kept here, so beams, batches and two conversations on one model cannot mix.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import DynamicCache

if TYPE_CHECKING:
    from duet.interfaces import DecoderSide


@dataclass
class Segment:
    """The layers between two boundaries.

    Attributes:
        start: first layer.
        width: padded columns of the prompt cached by each of these layers.
        valid: `[B, T']` bool, False at padding among the cached prompt columns; None without padding.
        lengths: `[B]` long, real prompt tokens per row.
        ends: `[B]` long, position of the first token after the prompt: `lengths`, or more where visual tokens have not
            entered or are away, since the text there has the positions that it has beside them.
        visual: `[B]` long, how many of them are visual tokens that may be dropped.
        renumbered: positions of new tokens continue from `ends`; otherwise the caller's position ids are used.
        bias: `[B, T']`, added to the attention logits of the cached prompt columns; None for plain attention.
    """

    start: int
    width: int
    valid: Tensor | None
    lengths: Tensor
    ends: Tensor
    visual: Tensor
    renumbered: bool
    bias: Tensor | None = None

    def cut(self, columns: int) -> None:
        """Remove the last columns."""
        self.width -= columns
        gone: int | Tensor = columns
        if self.valid is not None:
            gone, self.valid = self.valid[:, -columns:].sum(-1), self.valid[:, :-columns]
        self.lengths, self.ends = self.lengths - gone, self.ends - gone
        self.bias = None if self.bias is None else self.bias[:, :-columns]

    def select(self, rows: Tensor, done: dict[int, Tensor]) -> None:
        """Reorder, repeat or drop batch rows in place; `done`: the selected padding of other segments, by its id."""
        for name in ("lengths", "ends", "visual"):
            values = getattr(self, name)
            setattr(self, name, values.index_select(0, rows.to(values.device)))
        if self.valid is not None:
            old = id(self.valid)
            if old not in done:
                done[old] = self.valid.index_select(0, rows.to(self.valid.device))
            self.valid = done[old]
        if self.bias is not None:
            self.bias = self.bias.index_select(0, rows.to(self.bias.device))


def shift_of(positions: Tensor | None, valid: Tensor) -> Tensor | None:
    """The shift of later positions against a plain count, `[B, 1]`.

    Args:
        positions: `[3, B, T]` M-RoPE ids of the prompt, optionally with a text axis first; None or `[B, T]` for a plain
            count, which has no shift.
        valid: `[B, T]` bool, False at padding.
    """
    if positions is None or positions.ndim == 2:
        return None
    valid = valid.to(positions.device)
    last = positions[-3:].masked_fill(~valid, -1).amax((0, 2))
    return (last + 1 - valid.sum(-1))[:, None]


@dataclass
class PromptRecord:
    """The part of the prompt that each layer has cached.

    Attributes:
        columns: padded length of the processor's prompt.
        decoder: the backbone's decoder side, for the rotary tables of new tokens.
        segments: ascending by `start`; the first starts at layer 0.
        shift: `[B, 1]` long, M-RoPE's shift of later positions against a plain count, since a picture takes fewer
            positions than it has tokens (transformers' `rope_deltas`, stored on the model there); None for a plain
            count.
    """

    columns: int
    decoder: DecoderSide
    segments: list[Segment] = field(default_factory=list)
    shift: Tensor | None = None

    def positions(self, new: int, seen: int, attention_mask: Tensor | None) -> Tensor:
        """M-RoPE ids `[3, B, S]` of new text.

        Args:
            new: how many tokens.
            seen: tokens before them, dropped ones included.
            attention_mask: `[B, seen + S]`, or None for no padding.
        """
        assert self.shift is not None
        if attention_mask is None:
            count = torch.arange(seen, seen + new, device=self.shift.device)[None]
        else:
            count = (attention_mask.long().cumsum(-1) - 1).clamp_min(0)[:, -new:].to(self.shift.device)
        return (count + self.shift).expand(3, -1, -1)

    def cut(self, columns: int) -> None:
        """Remove the last columns, which hold text; does nothing unless `columns` is positive."""
        if columns <= 0:
            return
        self.columns -= columns
        for segment in self.segments:
            segment.cut(columns)


class ReducedCache(DynamicCache):
    """`DynamicCache` of a shortened prompt. `get_seq_length` still counts the caller's full prompt."""

    prompt: PromptRecord

    @classmethod
    def adopt(cls, cache: DynamicCache, prompt: PromptRecord) -> ReducedCache:
        """Turn a caller's cache into a reduced one, in place: the caller keeps its reference."""
        plan = getattr(cache, "plan", None)
        if plan is not None:  # of `duet/engine/fixed.py`
            return plan.fix(cache, prompt)
        cache.__class__ = cls
        cache.prompt = prompt  # type: ignore[attr-defined]
        return cache  # type: ignore[return-value]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens seen so far, dropped ones included; the same for every layer."""
        cached = self.get_query_offset(0)
        return self.prompt.columns + cached - self.prompt.segments[0].width if cached else 0

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """Tokens in one layer; mask helpers use it as the size of their masks."""
        return super().get_seq_length(layer_idx)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Follow the beams."""
        super().reorder_cache(beam_idx.long())  # type: ignore[arg-type]
        self._select(beam_idx)

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the last tokens (a negative number), as assisted decoding does with wrong guesses."""
        super().crop(tokens_to_remove)
        self.prompt.cut(self.prompt.segments[0].width - self.get_query_offset(0))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows."""
        super().batch_select_indices(indices)
        self._select(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row."""
        super().batch_repeat_interleave(repeats)
        rows = len(self.prompt.segments[0].lengths)
        self._select(torch.arange(rows).repeat_interleave(repeats))

    def reset(self) -> None:
        """Empty the cache and drop the record: it becomes an ordinary `DynamicCache` again."""
        super().reset()
        del self.prompt
        self.__class__ = DynamicCache  # type: ignore[assignment]

    def _select(self, rows: Tensor) -> None:
        done: dict[int, Tensor] = {}  # segments of the same tokens go on sharing their padding
        for segment in self.prompt.segments:
            segment.select(rows, done)
        if self.prompt.shift is not None:
            self.prompt.shift = self.prompt.shift.index_select(0, rows.to(self.prompt.shift.device))
