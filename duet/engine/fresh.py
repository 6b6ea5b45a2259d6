"""New text tokens after a shortened prompt: where they are, and what they see, in each segment of its layers.

Segments differ in the prompt tokens that they have cached, so in masks and, where survivors are renumbered, in the
positions of what follows. Rotary tables are made once per step for all segments, masks once per length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from duet.engine.checks import check_mask
from duet.engine.compat import create_causal_mask
from duet.engine.prompt import rope_tables
from duet.engine.proportional import weighted

if TYPE_CHECKING:
    from torch import Tensor

    from duet.engine.cache import ReducedCache, Segment
    from duet.interfaces import TextModel


class FreshTokens:
    """The tokens of one step.

    Args:
        lm: text model.
        cache: of the prompt.
        hidden: `[B, S, D]` embeddings of the tokens.
        positions: their position ids in the caller's count, dropped tokens included; None for a plain count.
        attention_mask: `[B, prompt + seen + S]` over the caller's columns, or None.
    """

    def __init__(
        self,
        lm: TextModel,
        cache: ReducedCache,
        hidden: Tensor,
        positions: Tensor | None,
        attention_mask: Tensor | None,
    ) -> None:
        self._lm, self._cache, self._record = lm, cache, cache.prompt
        self._new, self._seen = hidden.shape[1], cache.get_seq_length()
        segments, self._tail = self._record.segments, None
        if attention_mask is not None:
            check_mask(attention_mask)
            tail = attention_mask[:, self._record.columns :].bool()
            # where rows are padded a mask is needed anyway, and the host need not wait
            plain = all(segment.valid is None for segment in segments) and bool(tail.all())
            self._tail = None if plain else tail
        self._ropes = self._rotary([one for one in segments if one.renumbered], hidden)
        if len(self._ropes) < len(segments):
            kept = rope_tables(self._record.decoder, lm, hidden, self._given(positions, hidden))
            self._ropes |= {segment.start: kept for segment in segments if not segment.renumbered}
        self._masks: dict[tuple[int, int, int, torch.device], Any] = {}

    def rope(self, segment: Segment, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """`cos, sin`, each `[B, S, d]`, on the device of `hidden`."""
        cos, sin = self._ropes[segment.start]
        return cos.to(hidden.device), sin.to(hidden.device)

    def mask(self, segment: Segment, hidden: Tensor) -> Any:
        """What the tokens see in a segment's layers, as the attention kernel wants it."""
        key = segment.width, id(segment.valid), id(segment.bias), hidden.device
        if key not in self._masks:
            mask = create_causal_mask(
                config=self._lm.config,
                inputs_embeds=hidden,
                attention_mask=self._columns(segment, hidden),
                past_key_values=self._cache,
                layer_idx=segment.start,
            )
            self._masks[key] = weighted(mask, segment.bias, hidden, segment.width + self._later)
        return self._masks[key]

    @property
    def _later(self) -> int:
        """Columns after the prompt, these tokens included."""
        return self._seen - self._record.columns + self._new

    def _rotary(self, segments: list[Segment], hidden: Tensor) -> dict[int, tuple[Tensor, Tensor]]:
        """First layer -> tables of segments whose tokens are numbered on from their own ends."""
        if not segments:
            return {}
        if self._tail is None:
            count = self._seen - self._record.columns + torch.arange(self._new, device=hidden.device)[None]
        else:
            count = (self._tail.to(hidden.device).long().cumsum(-1)[:, -self._new :] - 1).clamp_min(0)
        places = torch.cat([one.ends.to(hidden.device)[:, None] + count for one in segments], 1)
        cos, sin = rope_tables(self._record.decoder, self._lm, hidden, places)
        parts = zip(cos.split(self._new, 1), sin.split(self._new, 1), strict=True)
        return dict(zip((one.start for one in segments), parts, strict=True))

    def _given(self, positions: Tensor | None, hidden: Tensor) -> Tensor:
        if positions is not None:
            return positions.to(hidden.device)
        return torch.arange(self._seen, self._seen + self._new, device=hidden.device)[None]

    def _columns(self, segment: Segment, hidden: Tensor) -> Tensor | None:
        """`[B, cached + S]` bool, False at padding; None without any."""
        if segment.valid is None and self._tail is None:
            return None
        ones = torch.ones(hidden.shape[0], 1, dtype=torch.bool, device=hidden.device)
        prompt = ones.expand(-1, segment.width) if segment.valid is None else segment.valid
        tail = ones.expand(-1, self._later) if self._tail is None else self._tail.to(hidden.device)
        return torch.cat([prompt, tail], dim=1)
