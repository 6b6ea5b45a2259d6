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
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from duet.engine.cache import ReducedCache, Segment
    from duet.interfaces import DecoderSide, TextModel


def fresh_ropes(
    decoder: DecoderSide, lm: TextModel, hidden: Tensor, ends: Sequence[Tensor | None], count: Tensor, positions: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """Rotary tables of new tokens in each segment, `cos, sin`, each `[B, S, d]`: made once for all segments.

    Args:
        decoder, lm: the text model, and the side that knows its tables.
        hidden: `[B, S, D]`.
        ends: of each segment, `[B]` as in `Segment`; None where survivors keep their positions.
        count: `[B or 1, S]` long, position of each token after the prompt.
        positions: of segments without `ends`.
    """
    places = [one.to(hidden.device)[:, None] + count for one in ends if one is not None]
    numbered: Iterator[tuple[Tensor, Tensor]] = iter(())
    if places:
        cos, sin = rope_tables(decoder, lm, hidden, torch.cat(places, 1))
        new = hidden.shape[1]
        numbered = zip(cos.split(new, 1), sin.split(new, 1), strict=True)
    kept = rope_tables(decoder, lm, hidden, positions.to(hidden.device)) if len(places) < len(ends) else None
    return [kept if one is None else next(numbered) for one in ends]  # type: ignore[misc]


def seen_as(segment: Segment) -> Any:
    """Segments with equal ones have cached the same tokens, so new ones see the same in them."""
    return segment.width, id(segment.valid), id(segment.bias)


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
        if positions is None:
            positions = torch.arange(self._seen, self._seen + self._new, device=hidden.device)[None]
        ends = [one.ends if one.renumbered else None for one in segments]
        ropes = fresh_ropes(self._record.decoder, lm, hidden, ends, self._count(hidden), positions)
        self._ropes = dict(zip((one.start for one in segments), ropes, strict=True))
        self._masks: dict[tuple[Any, torch.device], Any] = {}

    def rope(self, segment: Segment, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """`cos, sin`, each `[B, S, d]`, on the device of `hidden`."""
        cos, sin = self._ropes[segment.start]
        return cos.to(hidden.device), sin.to(hidden.device)

    def mask(self, segment: Segment, hidden: Tensor) -> Any:
        """What the tokens see in a segment's layers, as the attention kernel wants it."""
        key = seen_as(segment), hidden.device
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

    def _count(self, hidden: Tensor) -> Tensor:
        """Position of each token after the prompt, `[B or 1, S]` long."""
        if self._tail is None:
            return self._seen - self._record.columns + torch.arange(self._new, device=hidden.device)[None]
        return (self._tail.to(hidden.device).long().cumsum(-1)[:, -self._new :] - 1).clamp_min(0)

    def _columns(self, segment: Segment, hidden: Tensor) -> Tensor | None:
        """`[B, cached + S]` bool, False at padding; None without any."""
        if segment.valid is None and self._tail is None:
            return None
        ones = torch.ones(hidden.shape[0], 1, dtype=torch.bool, device=hidden.device)
        prompt = ones.expand(-1, segment.width) if segment.valid is None else segment.valid
        tail = ones.expand(-1, self._later) if self._tail is None else self._tail.to(hidden.device)
        return torch.cat([prompt, tail], dim=1)
