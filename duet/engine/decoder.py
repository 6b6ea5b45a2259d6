"""The decoder loop: runs the layers; visual tokens enter, are dropped, leave and come back at layer boundaries.

Boundary 0 is the input of the language model (placeholders that stage 1 left empty are dropped), boundary p > 0 is
after p layers (late entry, stage 2, layers without them). Hidden states, position ids, rotary tables, masks and the
caches of later layers grow and shrink only here. The same loop serves LLaMA- and Qwen2-like text models, inference and
training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers.modeling_outputs import BaseModelOutputWithPast

from duet.engine.cache import PromptRecord, ReducedCache
from duet.engine.call import IGNORED
from duet.engine.checks import check_window
from duet.engine.fresh import FreshTokens
from duet.engine.host import first_marked
from duet.engine.prompt import PromptRun, enter_prompt, layers_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor
    from transformers import DynamicCache

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
    segments = {segment.start: segment for segment in cache.prompt.segments}
    check_window(lm.config, max(cache.get_query_offset(start) for start in segments) + hidden.shape[1])
    fresh = FreshTokens(lm, cache, hidden, positions, attention_mask)
    for number, layer in enumerate(layers_of(lm)):
        if number in segments:
            segment = segments[number]
            hidden = hidden.to(segment.lengths.device)
            rope, mask = fresh.rope(segment, hidden), fresh.mask(segment, hidden)
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
