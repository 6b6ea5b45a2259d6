"""Decoding with caches of a fixed size (`cache_implementation="static"`).

After a shortened prompt the layers between two boundaries hold the same number of tokens, known by plan. Their caches
get room for the answer, rounded up to a bucket, so every step has the same shapes, waits for nothing, and can be
compiled once per bucket and captured as a CUDA graph. As in stock, `generate` compiles on a GPU, or where its
`compile_config` says so.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPast

from duet.engine.cache import ReducedCache
from duet.engine.checks import check_mask, check_window
from duet.engine.compat import attention_backend, capturing, keep_address, on_one_device, uncollected
from duet.engine.fresh import fresh_ropes, seen_as
from duet.engine.host import upload
from duet.engine.prompt import layers_of
from duet.engine.proportional import weighted
from duet.ops.regions import Code

if TYPE_CHECKING:
    from transformers import DynamicCache

    from duet.engine.cache import PromptRecord
    from duet.interfaces import TextModel

#: Smallest bucket, in tokens; larger ones leave at most an eighth empty.
BUCKET = 64


def bucket(tokens: int) -> int:
    """The capacity of a cache for this many tokens."""
    step = max(BUCKET, 1 << max(tokens.bit_length() - 4, 0))
    return -(-tokens // step) * step


@dataclass
class Rooms:
    """The tensors of a cache.

    Attributes:
        keys, values: `[B, Hkv, C, d]`, one per layer; C is a bucket.
        valid: `[B, C]` bool, one per segment, False at padding.
        bias: `[B, C]`, one per segment, added to the logits of the columns; empty for plain attention.
    """

    keys: list[Tensor]
    values: list[Tensor]
    valid: list[Tensor]
    bias: list[Tensor]


@dataclass
class Steps:
    """Compiled steps of one attachment, and the memory that their graphs read.

    A captured graph reads fixed addresses, so the memory of a finished answer is used again by the next one of its
    bucket.

    Attributes:
        code: the steps.
        free: shapes -> memory that no cache uses.
    """

    code: Code = field(default_factory=lambda: Code(uncollected))
    free: dict[Any, list[Rooms]] = field(default_factory=dict)

    def __deepcopy__(self, memo: dict[int, Any]) -> Steps:
        return self  # a copied cache decodes by the same steps

    def __reduce__(self) -> Any:
        return Steps, ()  # what was compiled is not pickled


@dataclass
class FixedPlan:
    """What `generate` plans for a cache before its prompt runs.

    Attributes:
        columns: prompt and answer, in the caller's count.
        steps: of the attachment.
        options: of `torch.compile`; None: steps run uncompiled.
    """

    columns: int
    steps: Steps
    options: dict[str, Any] | None = None

    def fix(self, cache: DynamicCache, prompt: PromptRecord) -> FixedCache:
        """Give the cache of a prompt that has run its room, in place."""
        return FixedCache.fixed(cache, prompt, self)


class FixedCache(ReducedCache):
    """`ReducedCache` whose layers have a fixed size.

    Attributes:
        plan: from `generate`.
        rooms: the tensors; `layers` hold the same.
        new: columns after the prompt.
        widths: of the segments, on the device.
    """

    plan: FixedPlan
    rooms: Rooms
    new: int
    widths: Tensor

    @property
    def each(self) -> list[Any]:
        """The layers."""
        return list(self.layers)

    @classmethod
    def fixed(cls, cache: Any, prompt: PromptRecord, plan: FixedPlan) -> FixedCache:
        """Adopt a filled cache, in place."""
        cache.__class__ = cls
        cache.prompt, cache.plan, cache.new = prompt, plan, 0
        cache.allot(max(plan.columns - prompt.columns, 1))
        return cache

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """Tokens in one layer."""
        return self.segment_of(layer_idx).width + self.new

    def segment_of(self, layer: int) -> Any:
        """The segment of a layer."""
        return [one for one in self.prompt.segments if one.start <= layer][-1]

    def reserve(self, new: int) -> None:
        """Make room for more columns; a no-op where the bucket has it."""
        longest = max(one.width for one in self.prompt.segments)
        room = min(one.shape[1] - (part.width + self.new) for one, part in self._pairs())
        if room < new:
            self.allot(max(self.new + new, self.rooms.valid[0].shape[1] - longest))

    def allot(self, room: int) -> None:
        """Move into buckets that hold each segment's prompt and `room` columns."""
        segments, used = self.prompt.segments, self.new
        before = self.__dict__.get("rooms")
        starts = [one.start for one in segments]
        sizes = [bucket(one.width + max(room, used)) for one in segments]
        of_layer = [sum(start <= number for start in starts) - 1 for number in range(len(self.each))]
        pooled = self.plan.options is not None
        shapes = tuple(
            (*layer.keys.shape[:2], sizes[part], layer.keys.shape[3], layer.values.shape[3], *_kind(layer.keys))
            for layer, part in zip(self.each, of_layer, strict=True)
        )
        biased = any(one.bias is not None for one in segments)
        free = self.plan.steps.free.setdefault((tuple(starts), shapes, biased), []) if pooled else []
        rooms = free.pop() if free else _new_rooms(shapes, starts, biased, static=pooled)
        for number, (layer, part) in enumerate(zip(self.each, of_layer, strict=True)):
            filled = segments[part].width + used
            for own, old in ((rooms.keys[number], layer.keys), (rooms.values[number], layer.values)):
                own[:, :, :filled].copy_(old[:, :, :filled])
                own[:, :, filled:].zero_()  # a masked NaN is still a NaN
            layer.keys, layer.values = rooms.keys[number], rooms.values[number]
        for number, (valid, segment) in enumerate(zip(rooms.valid, segments, strict=True)):
            valid.fill_(True)
            if before is not None:
                valid[:, : segment.width + used] = before.valid[number][:, : segment.width + used]
            elif segment.valid is not None:
                valid[:, : segment.width] = segment.valid
        self.rooms, self.widths = rooms, self._measured()
        self._weigh()
        if pooled:
            weakref.finalize(self, free.append, rooms).atexit = False

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the last tokens (a negative number)."""
        self.new += tokens_to_remove
        if self.new < 0:
            self.prompt.cut(-self.new)
            self.new, self.widths = 0, self._measured()
            self._weigh()

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Follow the beams; tensors keep their addresses."""
        rows = beam_idx.long()
        for one in (*self.rooms.keys, *self.rooms.values, *self.rooms.valid, *self.rooms.bias):
            one.copy_(one.index_select(0, rows.to(one.device)))
        self._select(rows)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows."""
        self._move(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row."""
        self._move(torch.arange(len(self.prompt.segments[0].lengths)).repeat_interleave(repeats))

    def reset(self) -> None:
        """Empty the cache: it becomes an ordinary `DynamicCache` again."""
        for layer in self.each:
            layer.keys = layer.values = None
            layer.is_initialized = False
        del self.rooms, self.plan, self.new, self.widths
        super().reset()

    def _move(self, rows: Tensor) -> None:
        parts = vars(self.rooms).values()
        self.rooms = Rooms(*([one.index_select(0, rows.to(one.device)) for one in part] for part in parts))
        for layer, keys, values in zip(self.each, self.rooms.keys, self.rooms.values, strict=True):
            layer.keys, layer.values = keys, values
        self._select(rows)
        self.plan = replace(self.plan, options=None)  # other tensors than those that a graph reads

    def _weigh(self) -> None:
        """Write what is added to the logits of the prompt's columns."""
        for own, segment in zip(self.rooms.bias, self.prompt.segments, strict=bool(self.rooms.bias)):
            own.zero_()
            if segment.bias is not None:
                own[:, : segment.width] = segment.bias

    def _measured(self) -> Tensor:
        device = self.rooms.valid[0].device if "rooms" in vars(self) else self.each[0].keys.device
        return upload(torch.tensor([one.width for one in self.prompt.segments]), device)

    def _pairs(self) -> Any:
        return zip(self.rooms.valid, self.prompt.segments, strict=True)


def _new_rooms(shapes: Any, starts: list[int], biased: bool, static: bool) -> Rooms:
    keys, values, valid, bias = [], [], [], []
    for number, (rows, heads, size, width, other, dtype, device) in enumerate(shapes):
        keys.append(torch.zeros(rows, heads, size, width, dtype=dtype, device=device))
        values.append(torch.zeros(rows, heads, size, other, dtype=dtype, device=device))
        if number in starts:
            valid.append(torch.ones(rows, size, dtype=torch.bool, device=device))
            if biased:
                bias.append(torch.zeros(rows, size, dtype=dtype, device=device))
    if static:
        for one in (*keys, *values, *valid, *bias):
            keep_address(one)
    return Rooms(keys, values, valid, bias)


def _kind(tensor: Tensor) -> tuple[torch.dtype, torch.device]:
    return tensor.dtype, tensor.device


class _Columns:
    """In place of the cache inside a step: writes keys and values at some columns, and returns all of them."""

    def __init__(self, rooms: Rooms, index: Tensor) -> None:
        self._rooms, self._index = rooms, index

    def update(self, keys: Tensor, values: Tensor, layer: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """`[B, Hkv, S, d] -> [B, Hkv, C, d]` each."""
        whole, index = (self._rooms.keys[layer], self._rooms.values[layer]), self._index.to(keys.device)
        for one, new in zip(whole, (keys, values), strict=True):
            one.index_copy_(2, index, new.to(one.dtype))
        return whole


@dataclass
class _Layout:
    """What a step's program depends on: of each segment the first layer, the numbering, and the first segment that has
    the same tokens.
    """

    starts: tuple[int, ...]
    renumbered: tuple[bool, ...]
    twins: tuple[int, ...]


def _step(
    lm: TextModel,
    decoder: Any,
    layout: _Layout,
    rooms: Rooms,
    ends: list[Tensor],
    hidden: Tensor,
    places: Tensor,
    count: Tensor,
    fresh: Tensor,
    positions: Tensor,
    kwargs: dict[str, Any],
) -> Tensor:
    """Run new tokens through all layers.

    Args:
        lm, decoder: text model, and the decoder side of its backbone.
        layout: of the segments.
        rooms: the caches; written in place.
        ends: of each segment, `[B]`, see `Segment`.
        hidden: `[B, S, D]`.
        places: of each segment, `[segments]` long, the column of the first new token.
        count: `[B, S]` long, position of the new tokens after the prompt.
        fresh: `[B, S]` bool, False at padding.
        positions: of segments that are not renumbered.
        kwargs: handed to every layer.

    Returns:
        `[B, S, D]` after the final norm.
    """
    steps = torch.arange(hidden.shape[1], device=hidden.device)
    eager = attention_backend(lm.config) == "eager"
    own = [one if new else None for one, new in zip(ends, layout.renumbered, strict=True)]
    ropes = fresh_ropes(decoder, lm, hidden, own, count, positions)
    masks: dict[int, Tensor] = {}
    mask = rope = cache = None
    for number, layer in enumerate(layers_of(lm)):
        if number in layout.starts:
            part = layout.starts.index(number)
            valid = rooms.valid[part]
            hidden = hidden.to(valid.device)
            index = places[part].to(valid.device) + steps.to(valid.device)
            valid.index_copy_(1, index, fresh.to(valid.device))
            mask = masks.get(layout.twins[part])
            if mask is None or mask.device != valid.device:
                mask = (torch.arange(valid.shape[1], device=valid.device) <= index[:, None]) & valid[:, None, None]
                if rooms.bias:
                    mask = weighted(mask, rooms.bias[part], hidden, valid.shape[1])
                elif eager:
                    mask = torch.zeros_like(mask, dtype=hidden.dtype).masked_fill(~mask, torch.finfo(hidden.dtype).min)
                masks[part] = mask
            rope = tuple(table.to(valid.device) for table in ropes[part])
            cache = _Columns(rooms, index)
        hidden = layer(hidden, attention_mask=mask, position_embeddings=rope, past_key_values=cache, **kwargs)
    return lm.norm(hidden)


def run_fixed(
    lm: TextModel,
    hidden: Tensor,
    positions: Tensor | None,
    attention_mask: Tensor | None,
    cache: FixedCache,
    **kwargs: Any,
) -> BaseModelOutputWithPast:
    """`duet.engine.decoder.run_cached` for a cache of fixed size."""
    record, new, seen = cache.prompt, hidden.shape[1], cache.get_seq_length()
    segments, device = record.segments, hidden.device
    check_window(lm.config, max(one.width for one in segments) + cache.new + new)
    cache.reserve(new)
    if attention_mask is None:
        fresh = torch.ones(hidden.shape[:2], dtype=torch.bool, device=device)
        count = torch.arange(cache.new, cache.new + new, device=device).expand(hidden.shape[0], -1)
    else:
        check_mask(attention_mask)
        tail = attention_mask[:, record.columns :].to(device)
        fresh = tail[:, -new:].bool()
        count = (tail.long().cumsum(-1)[:, -new:] - 1).clamp_min(0)
    if positions is None:
        positions = torch.arange(seen, seen + new, device=device)[None]
    # slices of masks that grow have other strides at each step
    fresh, count, positions = (one.clone(memory_format=torch.contiguous_format) for one in (fresh, count, positions))
    tokens = [seen_as(one) for one in segments]
    twins = tuple(tokens.index(one) for one in tokens)
    layout = _Layout(tuple(one.start for one in segments), tuple(one.renumbered for one in segments), twins)
    key = (layout.starts, layout.renumbered, twins, new, tuple(one.shape for one in cache.rooms.valid), positions.shape)
    options = cache.plan.options
    compiles = options is not None and not torch.is_grad_enabled() and not capturing() and on_one_device(lm)
    step = cache.plan.steps.code.get(_step, key, options) if compiles and options is not None else _step
    ends = [one.ends for one in segments]
    places = cache.widths.to(device) + cache.new
    states = step(lm, record.decoder, layout, cache.rooms, ends, hidden, places, count, fresh, positions, kwargs)
    cache.new += new
    # the next replay of a graph writes where this one did
    return BaseModelOutputWithPast(last_hidden_state=states.clone() if compiles else states, past_key_values=cache)
