"""From `input_ids` and pictures to the embeddings that enter the decoder: encode once, reduce, project, place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from duet.ops.gather import take

if TYPE_CHECKING:
    from torch import Tensor

    from duet.engine.call import Call
    from duet.types import Reduction


def embed_prompt(body: Any, call: Call, inputs: dict[str, Any]) -> Tensor:
    """Embed a prompt with pictures, and tell the call where its visual tokens are.

    Args:
        body: the module without head.
        call: gets `input_ids`, `layout`, `filled`, `entered`, and the trace of stage 1.
        inputs: keyword arguments of the body's forward.

    Returns:
        `[B, T, D]`. The reduced features fill the first slots of each picture where survivors are renumbered, the
        slots of the patches they stand for where positions are kept; empty slots are dropped at boundary 0.
    """
    compression = call.compression
    adapter = compression.adapter
    input_ids = inputs["input_ids"]
    needs = compression.reducer.needs if compression.reducer else frozenset()
    states = adapter.encode(body, inputs, needs)
    layout = adapter.layout(body, input_ids, inputs.get("attention_mask"), len(states.features))
    if compression.reducer is None:
        features, slots = adapter.full_tokens(body, states), None
    else:
        assert compression.budget.stage1 is not None
        reduction = compression.reducer(states, compression.budget.stage1)
        features, slots = _place(reduction, int(layout.slot.max()) + 1, compression.renumber)
        if call.trace is not None:
            call.trace.add_reductions(reduction, layout)
    call.input_ids, call.layout = input_ids, layout
    call.filled = layout.visual if slots is None else layout.visual & slots[layout.picture, layout.slot]
    call.entered = call.filled.sum(1).tolist()
    if call.trace is not None:
        call.trace.entered = call.entered
    embeds = body.get_input_embeddings()(input_ids)
    projected = adapter.project(body, features).to(embeds.device, embeds.dtype)
    return embeds.masked_scatter(call.filled[..., None], projected)


def _place(reduction: Reduction, placeholders: int, renumber: bool) -> tuple[Tensor, Tensor]:
    """Features in the order of their slots, and which of its N placeholders `[P, N]` they fill."""
    pictures, kept = reduction.kept.shape
    slots = torch.zeros(pictures, placeholders, dtype=torch.bool, device=reduction.kept.device)
    if renumber:
        if kept > placeholders:
            raise ValueError(f"stage 1 makes {kept} tokens of a picture that has only {placeholders} placeholders")
        slots[:, :kept] = True
        return reduction.features, slots
    order = reduction.kept.argsort(1)
    return take(reduction.features, order), slots.scatter(1, reduction.kept, True)
