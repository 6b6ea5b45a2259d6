"""The one loop: runs the decoder layers and drops visual tokens at layer boundaries.

Boundary 0 is the entrance of the language model (placeholders that stage 1 left empty), boundary p > 0 lies behind p
layers (stage 2). Hidden states, position ids, rotary tables, masks and the caches of later layers shrink here and
nowhere else. The same loop serves LLaMA- and Qwen2-like text models, inference and training.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPast

from duet.engine.cache import PromptRecord, ReducedCache, Segment
from duet.engine.call import IGNORED
from duet.engine.checks import check_mask, check_window
from duet.engine.compat import create_causal_mask
from duet.engine.ranking import rank
from duet.engine.tokens import Tokens
from duet.ops.select import keep_best

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn
    from transformers import DynamicCache

    from duet.engine.call import Call
    from duet.interfaces import ModelAdapter, TextModel


def run_prompt(
    lm: TextModel, call: Call, hidden: Tensor, positions: Tensor | None, cache: DynamicCache | None, **kwargs: Any
) -> BaseModelOutputWithPast:
    """Run a prompt with pictures, dropping visual tokens on the way.

    Args:
        lm: text model (`layers`, `norm`, `rotary_emb`, `config`).
        call: layout, labels and compression of this call.
        hidden: `[B, T, D]` embeddings of the padded prompt.
        positions: `[B, T]` position ids, `[A, B, T]` for several axes, or None for 0, 1, 2, ...
        cache: an empty cache, or None.
        kwargs: handed to every layer.

    Returns:
        `last_hidden_state [B, T, D]`, zero where a token was dropped; in training with labels `[1, M, D]`, only the
        M tokens that predict a label.
    """
    record = PromptRecord(columns=hidden.shape[1], adapter=call.compression.adapter)
    tokens = _enter(lm, call, hidden, positions)
    check_window(lm.config, tokens.hidden.shape[1])
    moved = _note(call, record, tokens, boundary=0, moved=False)
    rope, mask = _tables(lm, call, tokens)
    drops = _drops(call)
    for number, layer in enumerate(_layers(lm)):
        if number in drops:
            tokens = _drop(lm, call, tokens.before(layer), rope, number, drops[number])
            moved = _note(call, record, tokens, boundary=number, moved=moved)
            rope, mask = _tables(lm, call, tokens)
        states = layer(tokens.hidden, attention_mask=mask, position_embeddings=rope, past_key_values=cache, **kwargs)
        tokens = replace(tokens, hidden=states)
    if cache is not None:
        cache = ReducedCache.adopt(cache, record)
    return BaseModelOutputWithPast(last_hidden_state=_leave(lm, call, tokens), past_key_values=cache)


def run_cached(
    lm: TextModel,
    hidden: Tensor,
    positions: Tensor | None,
    attention_mask: Tensor | None,
    cache: ReducedCache,
    **kwargs: Any,
) -> BaseModelOutputWithPast:
    """Run new text tokens behind a shortened prompt.

    Args:
        lm: text model.
        hidden: `[B, S, D]` embeddings of the new tokens.
        positions: their position ids as the caller counts them, dropped tokens included; None for a plain count.
        attention_mask: `[B, prompt + seen + S]` over the caller's columns, or None.
        cache: the cache that `run_prompt` filled.
        kwargs: handed to every layer.
    """
    record = cache.prompt
    seen = cache.get_seq_length()
    check_window(lm.config, cache.get_query_offset(0) + hidden.shape[1])
    tail = None
    if attention_mask is not None:
        check_mask(attention_mask)
        tail = attention_mask[:, record.columns :].bool()
        tail = None if bool(tail.all()) else tail
    segments = {segment.start: segment for segment in record.segments}
    for number, layer in enumerate(_layers(lm)):
        if number in segments:
            segment = segments[number]
            hidden = hidden.to(segment.lengths.device)
            places = _next_positions(segment, record, hidden, positions, tail, seen)
            rope = _rope(record.adapter, lm, hidden, places)
            mask = create_causal_mask(
                config=lm.config,
                inputs_embeds=hidden,
                attention_mask=_segment_mask(segment, tail, hidden, seen - record.columns),
                past_key_values=cache,
                layer_idx=number,
            )
        hidden = layer(hidden, attention_mask=mask, position_embeddings=rope, past_key_values=cache, **kwargs)
    return BaseModelOutputWithPast(last_hidden_state=lm.norm(hidden), past_key_values=cache)


def _drops(call: Call) -> dict[int, Tensor]:
    """Boundary -> candidates and survivors of each row, `[B, 2]` on the host, where any row loses a token."""
    compression = call.compression
    rows = [compression.budget.drops(entered) for entered in call.entered]
    stages = torch.tensor(rows).reshape(len(rows), -1, 2).unbind(1)
    found = zip(compression.layers, stages, strict=True)
    return {layer: stage for layer, stage in found if bool((stage[:, 0] > stage[:, 1]).any())}


def _layers(lm: TextModel) -> Sequence[nn.Module]:
    return lm.layers[: lm.config.num_hidden_layers]


def _enter(lm: TextModel, call: Call, hidden: Tensor, positions: Tensor | None) -> Tokens:
    assert call.layout is not None
    valid = call.layout.valid
    columns = torch.arange(hidden.shape[1], device=valid.device).expand(hidden.shape[0], -1)
    positions = columns if positions is None else positions.expand(*positions.shape[:-2], *columns.shape)
    padded = not bool(valid.all())
    left = padded and not bool(valid[:, 0].all())
    tokens = Tokens(hidden, columns, valid, positions, padded, left).before(lm.layers[0])
    if call.compression.reducer is None:
        return tokens
    holds = ~call.layout.placeholder | call.layout.filled
    return tokens.shrink(tokens.at(holds), call.compression.renumber)


def _drop(
    lm: TextModel, call: Call, tokens: Tokens, rope: tuple[Tensor, Tensor], number: int, counts: Tensor
) -> Tokens:
    assert call.layout is not None
    visual = tokens.at(call.layout.visual)
    goes_empty = not bool(counts[:, 1].any())
    counts = counts.to(visual.device)
    candidates = visual & (visual.cumsum(1) <= counts[:, :1])
    if call.trace is not None or not goes_empty:
        rope = (rope[0].to(visual.device), rope[1].to(visual.device))
        scores, voters = rank(lm, call, tokens, rope, number, candidates)
    else:
        scores, voters = torch.zeros_like(visual, dtype=torch.float32), visual
    keep = keep_best(scores, candidates, counts[:, 1]) | (visual & ~candidates)
    if call.trace is not None:
        call.trace.add_stage(number, keep, candidates, scores, voters, tokens.columns, call.layout.visual)
    return tokens.shrink(keep | ~visual, call.compression.renumber)


def _note(call: Call, record: PromptRecord, tokens: Tokens, boundary: int, moved: bool) -> bool:
    """Remember what the layers from `boundary` on cache. Returns whether positions have been renumbered by now."""
    renumbers = boundary > 0 or call.compression.reducer is not None
    moved = moved or (renumbers and call.compression.renumber)
    lengths = tokens.valid.sum(-1)
    assert call.layout is not None
    visual = tokens.at(call.layout.visual).sum(-1)
    record.segments.append(Segment(boundary, tokens.hidden.shape[1], tokens.mask, lengths, visual, moved))
    if call.trace is not None:
        call.trace.lengths[boundary] = lengths.tolist()
    return moved


def _tables(lm: TextModel, call: Call, tokens: Tokens) -> tuple[tuple[Tensor, Tensor], Any]:
    """Rotary tables and mask. No position ids for the mask: gaps in them would read as packed sequences."""
    rope = _rope(call.compression.adapter, lm, tokens.hidden, tokens.positions)
    mask = create_causal_mask(
        config=lm.config, inputs_embeds=tokens.hidden, attention_mask=tokens.mask, past_key_values=None
    )
    return rope, mask


def _rope(adapter: ModelAdapter, lm: TextModel, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Rotary tables beside the hidden states, wherever `device_map` has put the module that makes them."""
    cos, sin = adapter.rope(lm, hidden, positions)
    return cos.to(hidden.device), sin.to(hidden.device)


def _leave(lm: TextModel, call: Call, tokens: Tokens) -> Tensor:
    """Final norm, back in the columns of the prompt; in training only the tokens that predict a label."""
    tokens = tokens.before(lm.norm)
    if call.labels is not None:
        labels = call.labels.to(tokens.columns.device).gather(1, tokens.columns).masked_fill(~tokens.valid, IGNORED)
        predicts = tokens.valid[:, :-1] & (labels[:, 1:] != IGNORED)
        rows = predicts.nonzero()[:, 0]
        call.targets = (rows, tokens.columns[:, :-1][predicts], labels[:, 1:][predicts])
        if call.only_targets:
            return lm.norm(tokens.hidden[:, :-1][predicts])[None]
    hidden = lm.norm(tokens.hidden) * tokens.valid[..., None]
    batch, _, width = hidden.shape
    assert call.layout is not None
    whole = hidden.new_zeros(batch, call.layout.valid.shape[1], width)
    return whole.scatter(1, tokens.columns[..., None].expand(-1, -1, width), hidden)


def _next_positions(
    segment: Segment, record: PromptRecord, hidden: Tensor, positions: Tensor | None, tail: Tensor | None, seen: int
) -> Tensor:
    new = hidden.shape[1]
    steps = torch.arange(new, device=hidden.device)
    if not segment.renumbered:
        return (seen + steps)[None] if positions is None else positions.to(hidden.device)
    if tail is None:
        return segment.lengths[:, None] + (seen - record.columns) + steps
    return segment.lengths[:, None] + (tail.to(hidden.device).long().cumsum(-1)[:, -new:] - 1).clamp_min(0)


def _segment_mask(segment: Segment, tail: Tensor | None, hidden: Tensor, generated: int) -> Tensor | None:
    if segment.valid is None and tail is None:
        return None
    batch, new, _ = hidden.shape
    ones = torch.ones(batch, 1, dtype=torch.bool, device=hidden.device)
    prompt = ones.expand(-1, segment.width) if segment.valid is None else segment.valid
    return torch.cat([prompt, ones.expand(-1, generated + new) if tail is None else tail.to(hidden.device)], dim=1)
