"""From `input_ids` and pictures to the embeddings that enter the decoder: encode once, reduce, project, place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from duet.engine.checks import check_ending

if TYPE_CHECKING:
    from torch import Tensor

    from duet.engine.call import Call


def embed_prompt(body: Any, call: Call, inputs: dict[str, Any]) -> Tensor:
    """Embed a prompt with pictures, and tell the call where its visual tokens are.

    Args:
        body: the module without head.
        call: with `input_ids`; gets `layout`, `entered`, and the trace of stage 1.
        inputs: keyword arguments of the body's forward, without placeholders behind the prompt.

    Returns:
        `[B, T, D]`. The reduced features fill the first slots of each picture where survivors are renumbered, the
        slots of the patches they stand for where positions are kept; empty slots are dropped at boundary 0.
    """
    compression = call.compression
    adapter, reducer, stage1 = compression.adapter, compression.reducer, compression.stage1
    states = adapter.encode(body, inputs, reducer.needs if reducer else frozenset())
    reductions = [reducer(group, stage1) for group in states] if reducer and stage1 else None
    placement = adapter.place(body, inputs, states, reductions, in_place=not compression.renumber)
    call.layout = placement.layout
    call.entered = placement.layout.visual.sum(1).tolist()
    if call.trace is not None:
        call.trace.enter(placement, reductions)
    check_ending(call)
    embeds = body.get_input_embeddings()(call.input_ids)
    for part in placement.parts:
        mask = part.mask[..., None].to(embeds.device)
        embeds = embeds.masked_scatter(mask, part.features.to(embeds.device, embeds.dtype))
    return embeds
