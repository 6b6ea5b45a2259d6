"""Questions that go on from a prefix that was read before (`duet/engine/prefix.py`).

A question runs through the layers that its prefix has passed over the prefix's keys and values; then both parts go on
together, as any prompt does. Inside a batch a prefix is padded on its left and a question on its right, so a row's
tokens stay neighbours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPast

from duet.engine.cache import PromptRecord, ReducedCache
from duet.engine.compat import create_causal_mask
from duet.engine.decoder import leave_prompt, run_layers
from duet.engine.host import upload
from duet.engine.prefix import Prefix, Resumed, Rows
from duet.engine.prompt import PromptRun, layers_of, rope_tables
from duet.engine.proportional import weighted
from duet.engine.tokens import Tokens
from duet.engine.vision import valid_columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from duet.engine.call import Call
    from duet.interfaces import TextModel


def resume_prompt(body: Any, call: Call, inputs: dict[str, Any], prefixes: Sequence[Prefix | None]) -> Tensor:
    """Embed the questions of prompts whose prefixes were read before, and tell the call where its visual tokens are.

    Args:
        body: the module without the head.
        call: with `input_ids`; gets `layout`, `entered`, `resumed`, and the trace of stage 1.
        inputs: keyword arguments of the body's forward.
        prefixes: of each row, None for a row without pictures.

    Returns:
        `[B, S, D]` embeddings of the questions.

    Raises:
        ValueError: a prompt does not begin with its prefix, or has placeholders after it.
    """
    ids, valid, host = inputs["input_ids"], valid_columns(inputs), call.at_host()
    rows = Rows(prefixes)
    known = inputs.get("on_host", inputs)["input_ids"].cpu()
    marks = call.compression.vision.placeholders(body, known)
    starts, lengths, wrong = _facts(valid if host.valid is None else host.valid)
    sizes = [0 if one is None else one.columns for one in prefixes]
    for row, (one, start, size, length) in enumerate(zip(prefixes, starts, sizes, lengths, strict=True)):
        begins = one is None or torch.equal(known[row : row + 1, start : start + size], one.ids)
        if not begins or size >= length or bool(marks[row, start + size :].any()):
            wrong.append(row)
    if wrong:
        raise ValueError(
            f"prompt rows {sorted(set(wrong))} are not their pictures followed by a question: a prompt in this block "
            "begins with the text and pictures that were read, has text after them and no other pictures"
        )
    first = upload(torch.tensor(starts)[:, None], ids.device)
    call.valid = valid
    call.layout = rows.layout(first, ids.shape[1], valid)
    call.placeholder = call.layout.placeholder
    call.entered = [0 if one is None else one.entered for one in prefixes]
    if call.trace is not None:
        call.trace.enter_again([None if one is None else one.trace for one in prefixes], starts)
    asked = [length - size for length, size in zip(lengths, sizes, strict=True)]
    steps = torch.arange(max(asked))
    real = steps < torch.tensor(asked)[:, None]
    columns = (steps + torch.tensor(starts)[:, None] + torch.tensor(sizes)[:, None]).masked_fill(~real, 0)
    columns, real = upload(columns, ids.device), upload(real, ids.device)
    widths = [0 if one is None else one.width for one in prefixes]
    both = [sum(parts) for parts in zip(widths, asked, strict=True)]
    call.resumed = Resumed(rows, first, columns, real, min(asked) < max(asked), both)
    assert call.input_ids is not None
    embeds = body.get_input_embeddings()(call.input_ids.gather(1, columns))
    known = rows.embeddings(first, ids.shape[1])
    if known is not None:
        index = columns[..., None].expand_as(embeds).to(known.device)
        call.embeddings = known.scatter_add(1, index, (embeds * real[..., None]).to(known.device))
    return embeds


def _facts(valid: Tensor) -> tuple[list[int], list[int], list[int]]:
    """First column and number of real tokens of each row, and the rows with padding inside."""
    columns = torch.arange(valid.shape[1], device=valid.device)
    first, last = valid.int().argmax(1), torch.where(valid, columns, -1).amax(1)
    starts, lengths, ends = torch.stack([first, valid.sum(1), last]).tolist()
    whole = zip(starts, lengths, ends, strict=True)
    return starts, lengths, [row for row, (start, length, end) in enumerate(whole) if end - start + 1 != length]


def run_resumed(
    lm: TextModel, call: Call, hidden: Tensor, positions: Tensor | None, cache: DynamicCache | None, **kwargs: Any
) -> BaseModelOutputWithPast:
    """Run questions on from their prefixes.

    Args:
        lm: text model.
        call: with `resumed`.
        hidden: `[B, S, D]` embeddings of the questions.
        positions: `[B, T]` or `[A, B, T]` position ids of the prompts; None: every row counts from its first token.
        cache: an empty cache, or None.
        kwargs: handed to every layer.

    Returns:
        as `run_prompt`; the cache is as after `run_prompt`, too, up to the order of padding.
    """
    resumed, layout = call.resumed, call.layout
    assert resumed is not None and layout is not None
    rows, split = resumed.rows, resumed.rows.split
    record = PromptRecord(layout.valid.shape[1], call.compression.decoder)
    filled = DynamicCache(config=lm.config) if cache is None else cache
    prefix = rows.tokens(resumed.first)
    question = _question(call, hidden, positions, prefix)
    question = _before_split(lm, call, question, filled, **kwargs)
    run = PromptRun(lm, call, record, _joined(prefix, question, resumed.lengths))
    run_layers(run, range(split, len(layers_of(lm))), filled, **kwargs)
    if cache is not None:
        cache = ReducedCache.adopt(cache, record)
    return BaseModelOutputWithPast(last_hidden_state=leave_prompt(lm, call, run.tokens), past_key_values=cache)


def _question(call: Call, hidden: Tensor, positions: Tensor | None, prefix: Tokens) -> Tokens:
    """The tokens of the questions, numbered after their prefixes."""
    resumed, layout, compression = call.resumed, call.layout, call.compression
    assert resumed is not None and layout is not None
    columns = resumed.columns
    if compression.renumber and compression.reducer is not None:
        before = prefix.valid.sum(1, keepdim=True).to(columns.device)
        own = before + torch.arange(columns.shape[1], device=columns.device)
        own = own.expand(*prefix.positions.shape[:-2], *own.shape)
    else:
        if positions is None:
            positions = (layout.valid.long().cumsum(1) - 1).clamp_min(0)
        axes = len(prefix.positions) if prefix.positions.ndim == 3 else 0
        positions = positions[-axes:] if positions.ndim == 3 else positions
        positions = positions.expand(*((axes,) if axes else ()), *columns.shape[:1], positions.shape[-1])
        own = positions.to(columns.device).gather(-1, columns.expand(*positions.shape[:-1], columns.shape[1]))
    return Tokens(hidden, columns, resumed.valid, own, resumed.padded, False)


def _before_split(lm: TextModel, call: Call, question: Tokens, cache: DynamicCache, **kwargs: Any) -> Tokens:
    """Run the questions through the layers that their prefixes have passed."""
    resumed = call.resumed
    assert resumed is not None
    rows, layers = resumed.rows, layers_of(lm)
    question = question.before(layers[0])
    mask = rope = None
    for number in range(rows.split):
        question = question.before(layers[number])
        keys, values = (rows.stack(lambda one, n=number, p=part: one.cached[n][p], 2, rows.width) for part in (0, 1))  # type: ignore[misc]
        cache.update(keys, values, number)
        if rope is None:
            rope = rope_tables(call.compression.decoder, lm, question.hidden, question.positions)
            padded = rows.padded or question.padded
            valid = torch.cat([rows.valid(question.valid.device), question.valid], 1) if padded else None
            mask = create_causal_mask(
                config=lm.config,
                inputs_embeds=question.hidden,
                attention_mask=valid,
                past_key_values=cache,
                layer_idx=0,
            )
            mask = weighted(mask, rows.bias(), question.hidden, rows.width + question.hidden.shape[1])
        states = layers[number](
            question.hidden, attention_mask=mask, position_embeddings=rope, past_key_values=cache, **kwargs
        )
        question = question.through(states)
    return question


def _joined(prefix: Tokens, question: Tokens, lengths: list[int]) -> Tokens:
    """Prefixes and questions as one sequence."""
    device = question.hidden.device

    def both(one: Tensor, other: Tensor, dim: int = 1) -> Tensor:
        return torch.cat([one.to(device), other.to(device)], dim)

    return Tokens(
        hidden=both(prefix.hidden, question.hidden),
        columns=both(prefix.columns, question.columns),
        valid=both(prefix.valid, question.valid),
        positions=both(prefix.positions, question.positions, -1),
        padded=prefix.padded or question.padded,
        left=False,
        deep=tuple(both(one, torch.zeros_like(question.hidden)) for one in prefix.deep),
        lengths=lengths,
    )
