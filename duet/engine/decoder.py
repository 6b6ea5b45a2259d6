"""The decoder loop: runs the layers; visual tokens enter, are dropped, leave and come back at layer boundaries.

Boundary 0 is the input of the language model (placeholders that stage 1 left empty are dropped), boundary p > 0 is
after p layers (late entry, stage 2, layers without them). Hidden states, position ids, rotary tables, masks and the
caches of later layers grow and shrink only here. The same loop serves LLaMA- and Qwen2-like text models, inference and
training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPast

from duet.engine.cache import PromptRecord, ReducedCache
from duet.engine.call import IGNORED
from duet.engine.checks import check_mask, check_window
from duet.engine.compat import create_causal_mask
from duet.engine.host import first_marked
from duet.engine.prompt import PromptRun, enter_prompt, layers_of, rope_tables

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor
    from transformers import DynamicCache

    from duet.engine.cache import Segment
    from duet.engine.call import Call
    from duet.engine.tokens import Tokens
    from duet.interfaces import TextModel


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
    run = PromptRun(
        lm, call, PromptRecord(hidden.shape[1], call.compression.decoder), enter_prompt(lm, call, hidden, positions)
    )
    run_layers(run, range(len(layers_of(lm))), cache, **kwargs)
    if cache is not None:
        cache = ReducedCache.adopt(cache, run.record)
    return BaseModelOutputWithPast(last_hidden_state=leave_prompt(lm, call, run.tokens), past_key_values=cache)


def run_layers(run: PromptRun, numbers: Iterable[int], cache: DynamicCache | None, **kwargs: Any) -> None:
    """Run some layers on a prompt.

    Args:
        run: the prompt; has its tokens after the last of these layers at the end.
        numbers: of the layers, ascending.
        cache: takes their keys and values, or None.
        kwargs: handed to every layer.
    """
    layers = layers_of(run.lm)
    for number in numbers:
        layer = layers[number]
        run.arrive(number, layer)
        states = layer(
            run.tokens.hidden,
            attention_mask=run.mask,
            position_embeddings=run.rope,
            past_key_values=cache,
            **run.entry(number),
            **kwargs,
        )
        run.leave(states)


def run_cached(
    lm: TextModel,
    hidden: Tensor,
    positions: Tensor | None,
    attention_mask: Tensor | None,
    cache: ReducedCache,
    **kwargs: Any,
) -> BaseModelOutputWithPast:
    """Run new text tokens after a shortened prompt.

    Args:
        lm: text model.
        hidden: `[B, S, D]` embeddings of the new tokens.
        positions: their position ids in the caller's count, dropped tokens included; None for a plain count.
        attention_mask: `[B, prompt + seen + S]` over the caller's columns, or None.
        cache: the cache that `run_prompt` filled.
        kwargs: handed to every layer.
    """
    record = cache.prompt
    seen = cache.get_seq_length()
    longest = max(cache.get_query_offset(segment.start) for segment in record.segments)
    check_window(lm.config, longest + hidden.shape[1])
    tail = None
    if attention_mask is not None:
        check_mask(attention_mask)
        tail = attention_mask[:, record.columns :].bool()
        if all(segment.valid is None for segment in record.segments):
            # where rows are padded a mask is needed anyway, and the host need not wait
            tail = None if bool(tail.all()) else tail
    segments = {segment.start: segment for segment in record.segments}
    kept: tuple[Tensor, Tensor] | None = None
    for number, layer in enumerate(layers_of(lm)):
        if number in segments:
            segment = segments[number]
            hidden = hidden.to(segment.lengths.device)
            if kept is None or segment.renumbered:
                places = _next_positions(segment, record, hidden, positions, tail, seen)
                rope = rope_tables(record.decoder, lm, hidden, places)
            else:  # the caller's positions, the same in every segment
                rope = kept[0].to(hidden.device), kept[1].to(hidden.device)
            kept = None if segment.renumbered else rope
            mask = create_causal_mask(
                config=lm.config,
                inputs_embeds=hidden,
                attention_mask=_segment_mask(segment, tail, hidden, seen - record.columns),
                past_key_values=cache,
                layer_idx=number,
            )
        hidden = layer(hidden, attention_mask=mask, position_embeddings=rope, past_key_values=cache, **kwargs)
    return BaseModelOutputWithPast(last_hidden_state=lm.norm(hidden), past_key_values=cache)


def leave_prompt(lm: TextModel, call: Call, tokens: Tokens) -> Tensor:
    """Apply the final norm and return to prompt columns; in training, only the tokens that predict a label."""
    tokens = tokens.before(lm.norm)
    if call.labels is not None:
        labels = call.labels.to(tokens.columns.device).gather(1, tokens.columns).masked_fill(~tokens.valid, IGNORED)
        predicts = tokens.valid[:, :-1] & (labels[:, 1:] != IGNORED)
        count, width = _targets(call), predicts.shape[1]
        index = predicts.flatten().nonzero()[:, 0] if count is None else first_marked(predicts, count)
        rows = index // max(width, 1)
        call.targets = (rows, _at(tokens.columns[:, :-1], index), _at(labels[:, 1:], index))
        if call.only_targets:
            return lm.norm(_at(tokens.hidden[:, :-1], index))[None]
    hidden = lm.norm(tokens.hidden) * tokens.valid[..., None]
    batch, _, width = hidden.shape
    assert call.layout is not None
    whole = hidden.new_zeros(batch, call.layout.valid.shape[1], width)
    # padding may have the same column as a remaining token
    return whole.scatter_add(1, tokens.columns[..., None].expand(-1, -1, width), hidden)


def _at(values: Tensor, index: Tensor) -> Tensor:
    """`[B, T, ...]` at flat indices `[M]`, `[M, ...]`."""
    return values.flatten(0, 1).index_select(0, index)


def _targets(call: Call) -> int | None:
    """How many tokens predict a label, if the host knows: labels of words, but not of a row's first token."""
    host = call.host
    if host is None or host.labels is None:
        return None
    assert host.valid is not None and host.placeholder is not None
    learned = (host.labels != IGNORED) & host.valid
    if bool((learned & host.placeholder).any()):
        return None
    return int((learned & (host.valid.long().cumsum(1) > 1)).sum())


def _next_positions(
    segment: Segment, record: PromptRecord, hidden: Tensor, positions: Tensor | None, tail: Tensor | None, seen: int
) -> Tensor:
    new = hidden.shape[1]
    steps = torch.arange(new, device=hidden.device)
    if not segment.renumbered:
        return (seen + steps)[None] if positions is None else positions.to(hidden.device)
    if tail is None:
        return segment.ends[:, None] + (seen - record.columns) + steps
    return segment.ends[:, None] + (tail.to(hidden.device).long().cumsum(-1)[:, -new:] - 1).clamp_min(0)


def _segment_mask(segment: Segment, tail: Tensor | None, hidden: Tensor, generated: int) -> Tensor | None:
    if segment.valid is None and tail is None:
        return None
    batch, new, _ = hidden.shape
    ones = torch.ones(batch, 1, dtype=torch.bool, device=hidden.device)
    prompt = ones.expand(-1, segment.width) if segment.valid is None else segment.valid
    return torch.cat([prompt, ones.expand(-1, generated + new) if tail is None else tail.to(hidden.device)], dim=1)
