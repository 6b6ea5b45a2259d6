"""The question for vision reducers: its words in the language model's embedding table, and its CLIP embeddings."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.utils.rnn import pad_sequence

from duet.engine.host import upload

if TYPE_CHECKING:
    from torch import Tensor

    from duet.engine.call import Call
    from duet.types import Unit, VisionStates


def add_question(
    body: Any, call: Call, states: list[VisionStates], units: list[list[Unit]], needs: frozenset[str]
) -> list[VisionStates]:
    """The states with the question of each unit's prompt row.

    In training, with labels, the question is the text after the last picture without the answers.

    Args:
        body: the module without the head.
        call: `input_ids`, labels and compression of this call.
        states: of all groups.
        units: of each group; a unit's prompt row has its question.
        needs: the reducer's needs.
    """
    assert call.input_ids is not None
    host = call.at_host()
    assert host.input_ids is not None
    ids, text = host.input_ids.cpu(), host.text.cpu()
    rows = [torch.tensor([unit.row for unit in group]) for group in units]
    if "text_tokens" in needs:
        words = [call.compression.read_words(one, mask) for one, mask in zip(ids, text, strict=True)]
        embedded = _pad([body.get_input_embeddings()(upload(one, call.input_ids.device)).detach() for one in words])
        states = [
            replace(group, text_tokens=_of(embedded[0], row, group), text_valid=_of(embedded[1], row, group))
            for group, row in zip(states, rows, strict=True)
        ]
    if needs & {"clip_text_embeds", "clip_image_embeds"}:
        companion = call.compression.companion
        assert companion is not None
        questions = [call.compression.read_question(one, mask) for one, mask in zip(ids, text, strict=True)]
        embeds, valid = _pad([companion.text_embeds(question) for question in questions])
        states = [
            replace(
                group,
                clip_image_embeds=companion.image_embeds(group.features),
                clip_text_embeds=_of(embeds, row, group),
                clip_text_valid=_of(valid, row, group),
            )
            for group, row in zip(states, rows, strict=True)
        ]
    return states


def _pad(rows: list[Tensor]) -> tuple[Tensor, Tensor]:
    """`[B, M, E]`, and `[B, M]` bool, False at padding."""
    marks = [torch.ones(len(row), dtype=torch.bool, device=row.device) for row in rows]
    return pad_sequence(rows, batch_first=True), pad_sequence(marks, batch_first=True)


def _of(values: Tensor, rows: Tensor, group: VisionStates) -> Tensor:
    return values[upload(rows, values.device)].to(group.features.device)
