"""Shared by tests of all tiny models: weights that matter, padded text, and a row alone against a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import duet
from duet.engine.trace import Trace


def draw_weights(model: Any, pad_token_id: int, tied: bool = False) -> Any:
    """Draw all matrices so large that attention is uneven and every token matters; returns the model in eval mode.

    Args:
        model: of any family.
        pad_token_id: for its generation config.
        tied: the head is the embeddings, which are then drawn like the other matrices.
    """
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                gain = 2.5 if any(part in name for part in ("q_proj", "k_proj", "qkv")) else 1.0
                weight.normal_(std=1.0 if "embed" in name and not tied else gain / weight.shape[1] ** 0.5)
    model.generation_config.pad_token_id = pad_token_id
    return model.eval()


def pad_text(rows: Sequence[Any], pad_token_id: int, side: str, labels: bool) -> dict[str, Tensor]:
    """Token ids, mask and, if asked for, labels of rows with `ids [T]` and `labels [T]`, padded on one side."""
    longest = max(len(row.ids) for row in rows)

    def pad(values: Tensor, fill: int) -> Tensor:
        padding = values.new_full((longest - len(values),), fill)
        return torch.cat([padding, values] if side == "left" else [values, padding])

    batch = {
        "input_ids": torch.stack([pad(row.ids, pad_token_id) for row in rows]),
        "attention_mask": torch.stack([pad(torch.ones_like(row.ids), 0) for row in rows]),
    }
    if labels:
        batch["labels"] = torch.stack([pad(row.labels, -100) for row in rows])
    return batch


def check_rows_alone(
    model: Any, rows: Sequence[Any], collate: Callable[..., dict[str, Tensor]], side: str, tolerance: dict[str, float]
) -> None:
    """Each row of a padded batch has the logits and the trace that it has alone."""
    batch = collate(rows, side)
    with duet.record(model) as together:
        logits = model(**batch).logits
    for number, row in enumerate(rows):
        with duet.record(model) as alone:
            wanted = model(**collate([row])).logits[0]
        torch.testing.assert_close(logits[number, batch["attention_mask"][number].bool()], wanted, **tolerance)
        if alone.entered:  # a prompt of words leaves no trace
            _check_trace(together, number, alone)


def _check_trace(together: Trace, number: int, alone: Trace) -> None:
    assert together.entered[number] == alone.entered[0]
    assert torch.equal(together.origins[number], alone.origins[0])
    kept = {stage.boundary: stage.kept[0].tolist() for stage in alone.stages}
    stages = {stage.boundary: stage for stage in together.stages}
    assert kept.keys() <= stages.keys()
    for boundary, stage in stages.items():
        # where only other rows lose tokens, this one keeps all
        assert stage.kept[number].tolist() == kept.get(boundary, stage.candidates[number].tolist())
    assert bool(together.reductions) == bool(alone.reductions)
    for row in alone.reductions:
        for one, other in zip(together.reductions[number], row, strict=True):
            assert torch.equal(one.kept, other.kept) and torch.equal(one.assign, other.assign)


def recomputed(model: Any, row: Any, new: Tensor, collate: Callable[..., dict[str, Tensor]]) -> Tensor:
    """Logits that predict each new token of a prompt, from one forward without a cache: labelled tokens do not vote."""
    labels = torch.cat([torch.full_like(row.ids, -100), new])
    whole = collate([replace(row, ids=torch.cat([row.ids, new]), labels=labels)], labels=True)
    return model(**whole, use_cache=False).logits[0, -len(new) - 1 : -1]
