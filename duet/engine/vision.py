"""From `input_ids` and pictures to the decoder's input embeddings: encode once, reduce, project, place."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from duet.engine.proportional import prompt_sizes
from duet.engine.question import add_question
from duet.ops.media import reduce_units

if TYPE_CHECKING:
    from torch import Tensor

    from duet.engine.call import Call, Compression
    from duet.types import Reduction, VisionStates

#: Needs of vision reducers that the engine meets itself; the tower meets the others.
PROJECTED = "projected"
TEXT_NEEDS = frozenset({"text_tokens", "clip_image_embeds", "clip_text_embeds"})


def embed_prompt(body: Any, call: Call, inputs: dict[str, Any], states: list[VisionStates] | None = None) -> Tensor:
    """Embed a prompt with pictures, and tell the call where its visual tokens are.

    Args:
        body: the module without the head.
        call: with `input_ids`; gets `layout`, `entered`, `deep`, and the trace of stage 1.
        inputs: keyword arguments of the body's forward, without placeholders after the prompt.
        states: of its pictures; None: the tower runs.

    Returns:
        `[B, T, D]`. Reduced features fill the first slots of each picture if survivors are renumbered, or the slots of
        the patches that they represent if positions are kept; empty slots are dropped at boundary 0.
    """
    compression = call.compression
    vision, reducer = compression.vision, compression.reducer
    if states is None:
        states = vision.encode(body, inputs, tower_needs(compression))
    call.placeholder = vision.placeholders(body, inputs["input_ids"])
    call.valid = valid_columns(inputs)
    reductions = reduce_prompt(body, call, inputs, states) if reducer else None
    placement = vision.place(body, inputs, states, reductions, in_place=not compression.renumber)
    call.layout = placement.layout
    if compression.proportional:
        assert reductions is not None
        call.layout = replace(call.layout, sizes=prompt_sizes(placement, reductions))
    entered = placement.entered
    call.entered = placement.layout.visual.sum(1).tolist() if entered is None else entered
    call.separators, call.kinds = placement.separators, placement.kinds
    if call.trace is not None:
        call.trace.enter(placement, reductions)
    embeds = body.get_input_embeddings()(call.input_ids)
    levels = max(len(part.deep) for part in placement.parts)
    call.deep = tuple(
        _fill(torch.zeros_like(embeds), [(part.mask, part.deep[level]) for part in placement.parts])
        for level in range(levels)
    )
    return _fill(embeds, [(part.mask, part.features) for part in placement.parts])


def tower_needs(compression: Compression) -> frozenset[str]:
    """What the tower computes for stage 1 besides its features."""
    reducer = compression.reducer
    return frozenset() if reducer is None else reducer.needs - TEXT_NEEDS - {PROJECTED}


def reads_question(compression: Compression) -> bool:
    """Whether stage 1 reads the question, so its result differs between questions about one picture."""
    reducer = compression.reducer
    return reducer is not None and bool(reducer.needs & TEXT_NEEDS)


def reduce_prompt(body: Any, call: Call, inputs: dict[str, Any], states: list[VisionStates]) -> list[Reduction]:
    """Stage 1 of all pictures of a call, one reduction per group of units."""
    compression = call.compression
    vision, reducer, stage1 = compression.vision, compression.reducer, compression.stage1
    assert reducer is not None and stage1 is not None
    seen = states
    if PROJECTED in reducer.needs:
        seen = _projected(vision, body, seen)
    wants_units = reducer.scope == "medium" or bool(reducer.needs & TEXT_NEEDS)
    units = vision.units(body, inputs, states) if wants_units else []
    if reducer.needs & TEXT_NEEDS:
        seen = add_question(body, call, seen, units, reducer.needs)
    return reduce_units(reducer, stage1, seen, units)


def _projected(vision: Any, body: Any, states: list[VisionStates]) -> list[VisionStates]:
    """The states with projected features. The projector runs once: ranks may have different numbers of groups."""
    if len(states) == 1:
        return [replace(states[0], projected=vision.project(body, states[0].features))]
    shapes = [group.features.shape[:2] for group in states]
    features = vision.project(body, torch.cat([group.features.flatten(0, 1) for group in states])[None])[0]
    parts = features.split([shape.numel() for shape in shapes])
    return [
        replace(group, projected=part.unflatten(0, shape))
        for group, part, shape in zip(states, parts, shapes, strict=True)
    ]


def _fill(hidden: Tensor, parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    """`hidden [B, T, D]` with features `[F, D]` in the columns of their masks `[B, T]`."""
    for mask, features in parts:
        hidden = hidden.masked_scatter(
            mask[..., None].to(hidden.device, non_blocking=True), features.to(hidden.device, hidden.dtype)
        )
    return hidden


def valid_columns(inputs: dict[str, Any]) -> Tensor:
    """`[B, T]` bool, False at padding."""
    mask = inputs.get("attention_mask")
    return inputs["input_ids"].new_ones(inputs["input_ids"].shape).bool() if mask is None else mask.bool()
