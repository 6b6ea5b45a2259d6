"""Tokens that wait while a layer runs on the others: before they enter, while they are away, or frozen.

A frozen token is read, not updated. The layer gets the other tokens only; inside its attention the keys and values of
the frozen ones, from the state that they have, take their places among the keys of the others, in the cache as well.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from duet.engine.compat import attention_backend
from duet.ops.gather import close_gaps, take

if TYPE_CHECKING:
    from torch import nn

    from duet.engine.tokens import Move, Tokens
    from duet.interfaces import DecoderSide

#: Argument through which a layer hands its frozen tokens to its attention.
_ARGUMENT = "duet_frozen"


@dataclass(frozen=True)
class Split:
    """The tokens of a padded batch that a layer runs on.

    Attributes:
        active: `[B, T]` bool.
        move: to the active tokens, `[B, S]`.
        place: `[B, T]` long, where each active token is among the S; 0 for the others.
    """

    active: Tensor
    move: Move
    place: Tensor

    @classmethod
    def of(cls, tokens: Tokens, active: Tensor, lengths: list[int] | None = None) -> Split:
        """The split of these tokens by `[B, T]` bool; padding is not active.

        `lengths` are the numbers of active ones, if the host knows them.
        """
        active = active & tokens.valid
        move = tokens.keep(active, lengths)
        return cls(active, move, _places(active, move.valid.shape[1], tokens.left))

    def join(self, whole: Tensor, states: Tensor) -> Tensor:
        """`whole [B, T, D]` with `states [B, S, D]` in the places of the active tokens; differentiable in both."""
        own = self.to(states.device)
        return torch.where(own.active[..., None], take(states, own.place), whole.to(states.device))

    def to(self, device: torch.device) -> Split:
        """The same on another device."""
        return Split(self.active.to(device), self.move.to(device), self.place.to(device))


@dataclass(frozen=True)
class Frozen:
    """What a layer with frozen tokens needs besides their states.

    Attributes:
        decoder, layer: the layer and the side of the backbone that knows its parts.
        split: the tokens that it updates.
        still: `[B, F]` long, the others, padded.
        source: `[B, T]` long, where the key of each token is among the S of the layer and the F after them.
        mask: `[B, 1, S, T]`, which keys each updated token sees, as the attention kernel wants it.
        rope, still_rope: rotary tables of both, `[B, S, d]` and `[B, F, d]`.
    """

    decoder: DecoderSide
    layer: nn.Module
    split: Split
    still: Tensor
    source: Tensor
    mask: Tensor
    rope: tuple[Tensor, Tensor]
    still_rope: tuple[Tensor, Tensor]

    @classmethod
    def of(
        cls,
        decoder: DecoderSide,
        layer: Any,
        config: Any,
        tokens: Tokens,
        still: Tensor,
        rope: tuple[Tensor, Tensor],
        updated: list[int] | None = None,
    ) -> Frozen:
        """Freeze the marked tokens, `[B, T]` bool, in a layer.

        Args:
            decoder, layer: see above.
            config: of the text model, for its attention kernel.
            tokens: all of them.
            still: the ones that are not updated.
            rope: rotary tables of all tokens, `[B, T, d]`.
            updated: how many of each row are updated, if the host knows them.
        """
        still = still & tokens.valid
        split = Split.of(tokens, ~still, updated)
        width = split.move.valid.shape[1]
        if updated is None or tokens.lengths is None:
            most = int(still.sum(-1).max())
        else:
            most = max(length - count for length, count in zip(tokens.lengths, updated, strict=True))
        index, _ = close_gaps(still, most, tokens.left)
        source = torch.where(still, width + _places(still, index.shape[1], tokens.left), split.place)
        mask = _mask(split.move.index, tokens.valid, attention_backend(config), tokens.hidden.dtype)
        tables = [table.to(index.device).expand(len(index), -1, -1) for table in rope]
        own, waiting = (tuple(take(table, at) for table in tables) for at in (split.move.index, index))
        return cls(decoder, layer, split, index, source, mask, own, waiting)  # type: ignore[arg-type]

    def to(self, device: torch.device) -> Frozen:
        """The same on another device."""
        if self.still.device == device:
            return self
        rope, still_rope = ((cos.to(device), sin.to(device)) for cos, sin in (self.rope, self.still_rope))
        return replace(
            self,
            split=self.split.to(device),
            still=self.still.to(device),
            source=self.source.to(device),
            mask=self.mask.to(device),
            rope=rope,
            still_rope=still_rope,
        )

    def enter(self, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        """Arguments of the layer for the tokens that it updates, from those for all."""
        hidden = args[0]
        own = {"attention_mask": self.mask, "position_embeddings": self.rope}
        waiting = {_ARGUMENT: (self, take(hidden, self.still))}
        return (self.split.move.apply(hidden), *args[1:]), {**kwargs, **own, **waiting}

    def keys_and_values(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, Hkv, F, d]` each, of the frozen tokens' states `[B, F, D]`."""
        projection = self.decoder.ranking(self.layer, states, self.still_rope)
        return projection.keys(), projection.values()


class _Beside:
    """In place of the cache of a layer with frozen tokens: adds their keys and values to those of the others."""

    def __init__(self, frozen: Frozen, states: Tensor, cache: Any) -> None:
        self._frozen, self._states, self._cache = frozen, states, cache

    def update(self, keys: Tensor, values: Tensor, layer: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """`[B, Hkv, S, d] -> [B, Hkv, T, d]` each, in prompt order."""
        source = self._frozen.source[:, None, :, None].expand(-1, keys.shape[1], -1, keys.shape[3])
        pairs = zip((keys, values), self._frozen.keys_and_values(self._states), strict=True)
        keys, values = (torch.cat([own, still.to(own.dtype)], 2).gather(2, source) for own, still in pairs)
        return (keys, values) if self._cache is None else self._cache.update(keys, values, layer, *args, **kwargs)


def enter_attention(attention: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]] | None:
    """Forward pre-hook of every attention module of an attached model.

    Inside the attention, not the layer: gradient checkpointing takes the cache from the layer's arguments.
    """
    given = kwargs.pop(_ARGUMENT, None)
    if given is None:
        return None
    frozen, states = given
    return args, {**kwargs, "past_key_values": _Beside(frozen, states, kwargs.get("past_key_values"))}


def _places(marked: Tensor, width: int, left: bool) -> Tensor:
    """`[B, T]` long, where each marked token is in a row of `width` without the others; 0 for the others."""
    count = marked.long().cumsum(-1) - 1
    if left:
        count = count + width - marked.sum(-1, keepdim=True)
    return count.masked_fill(~marked, 0)


def _mask(index: Tensor, valid: Tensor, backend: str, dtype: torch.dtype) -> Tensor:
    """`[B, 1, S, T]`: the tokens `index [B, S]` see the valid ones up to themselves, and padding sees itself."""
    columns = torch.arange(valid.shape[1], device=valid.device)
    sees = (columns <= index[..., None]) & valid[:, None] | (columns == index[..., None])
    if backend == "sdpa":
        return sees[:, None]
    return torch.zeros((), dtype=dtype, device=valid.device).masked_fill(~sees[:, None], torch.finfo(dtype).min)
