"""Read a prefix (`duet/engine/prefix.py`): its pictures, and the layers before a question matters."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache

from duet.engine.cache import PromptRecord
from duet.engine.call import Call
from duet.engine.compat import aligned
from duet.engine.decoder import run_layers
from duet.engine.prefix import Prefix
from duet.engine.prompt import PromptRun, enter_prompt, layers_of
from duet.engine.trace import Trace
from duet.engine.vision import embed_prompt
from duet.types import Layout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from duet.engine.call import Compression
    from duet.interfaces import TextModel
    from duet.types import VisionStates


def first_question(compression: Compression, depth: int) -> int:
    """The number of layers that run before the text of a question ranks anything, or visual tokens enter or leave.

    Args:
        compression: the attached parts.
        depth: layers of the decoder.
    """
    pruner = compression.pruner
    starts = [start for start, _ in compression.absences]
    if compression.layers:
        starts.append(max(compression.layers[0] - (pruner is not None and pruner.layer == "previous"), 0))
    return min(starts, default=depth)


@torch.no_grad()
def embed_prefix(
    body: Any,
    lm: TextModel,
    call: Call,
    inputs: dict[str, Any],
    head: Sequence[int],
    states: list[VisionStates] | None = None,
) -> Prefix:
    """The prefix of one prompt at the entrance of the language model.

    Args:
        body: the module without the head.
        lm: text model.
        call: new, with the answers in the prompt if there are any.
        inputs: keyword arguments of the body's forward, batch dimension 1, without padding; the prefix alone, or with
            the question if stage 1 reads it.
        head: its tokens up to the end of the prefix.
        states: of its pictures; None: the tower runs.
    """
    compression, columns = call.compression, len(head)
    call.input_ids, call.trace = inputs["input_ids"], Trace()
    positions = inputs.get("position_ids")
    if positions is None:
        positions = compression.decoder.position_ids(body, inputs)
    with aligned(body):
        hidden = embed_prompt(body, call, {**inputs, "position_ids": positions}, states)
    whole = call.layout
    assert whole is not None and call.trace is not None
    placeholder, filled, visual, valid = (
        mask[:, :columns] for mask in (whole.placeholder, whole.filled, whole.visual, whole.valid)
    )
    own = Call(
        compression,
        layout=Layout(placeholder, filled, visual, valid, whole.units, _first(whole.sizes, columns)),
        deep=tuple(one[:, :columns] for one in call.deep),
    )
    tokens = enter_prompt(lm, own, hidden[:, :columns], None if positions is None else positions[..., :columns])
    assert own.layout is not None
    return Prefix(torch.tensor([head]), tokens, (), own.layout, call.entered[0], call.trace, own.embeddings)


@torch.no_grad()
def advance(lm: TextModel, compression: Compression, prefix: Prefix) -> Prefix:
    """A prefix from the entrance of the language model to the boundary `first_question`.

    Each runs alone, so the last bits of what follows do not depend on the order in which pictures are read.
    """
    split = first_question(compression, len(layers_of(lm)))
    if split == 0:
        return prefix
    call = Call(compression, layout=prefix.layout, entered=[prefix.entered])
    cache = DynamicCache(config=lm.config)
    run = PromptRun(lm, call, PromptRecord(prefix.columns, compression.decoder), prefix.tokens)
    run_layers(run, range(split), cache)
    layers: Any = cache.layers[:split]
    cached = tuple((layer.keys, layer.values) for layer in layers)
    tokens = replace(prefix.tokens, hidden=run.tokens.hidden, deep=run.tokens.deep)
    return replace(prefix, tokens=tokens, cached=cached)


def _first(sizes: Tensor | None, columns: int) -> Tensor | None:
    return None if sizes is None else sizes[:, :columns]
