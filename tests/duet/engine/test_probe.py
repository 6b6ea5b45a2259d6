"""The attention that `probe` reads is that of the stock model, of every family."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import duet
from duet.engine.attachment import attached
from duet.engine.probe import probe
from tests.families import FAMILIES, Family
from tests.plain_duet import eager


def prompt_of(family: Family) -> dict[str, Any]:
    """The longest prompt with pictures, alone."""
    return family.collate([max(family.prompts, key=lambda row: len(row.ids))])


@torch.no_grad()
def test_rows_are_those_of_the_stock_model(family):
    """Whole maps by eager attention in one model, a few rows next to fused attention in the other."""
    model, inputs = family.build(), prompt_of(family)
    wanted = eager(model)(**inputs, output_attentions=True).attentions
    columns = torch.tensor([0, inputs["input_ids"].shape[1] - 3, inputs["input_ids"].shape[1] - 1])
    duet.attach(model, "none")
    with probe(model, [1, 3, len(wanted)], columns) as rows:
        model(**inputs)
    assert sorted(rows) == sorted({1, 3, len(wanted)})
    for layer, found in rows.items():
        expected = wanted[layer - 1][0].mean(0)[columns]
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
        assert not torch.allclose(found[-1], wanted[layer % len(wanted)][0].mean(0)[-1], atol=1e-4, rtol=0)


@torch.no_grad()
def test_answers_are_the_same_and_no_hook_stays(family):
    model, inputs = duet.attach(family.build(), "none"), prompt_of(family)
    asked = {"max_new_tokens": 3, "do_sample": False}
    wanted = model.generate(**inputs, **asked)
    hooks = [len(module._forward_pre_hooks) for module in model.modules()]
    with probe(model, [2], torch.tensor([1])) as rows:
        assert torch.equal(model.generate(**inputs, **asked), wanted)
    assert rows[2].shape == (1, inputs["input_ids"].shape[1])
    assert rows[2][0, 2:].sum() == 0  # no token sees later ones
    assert [len(module._forward_pre_hooks) for module in model.modules()] == hooks


@torch.no_grad()
def test_columns_of_visual_tokens_are_where_their_features_are(family):
    """LLaVA-NeXT's crops are interleaved row by row, with newlines between them."""
    model, inputs = duet.attach(family.build(), "none"), prompt_of(family)
    with duet.record(model) as trace:
        model(**inputs)
    (columns,), (origins,) = trace.columns, trace.origins
    assert len(columns) == len(origins) == trace.entered[0]
    assert columns.tolist() == sorted(set(columns.tolist()))
    held = attached(model).compression.vision.placeholders(model.model, inputs["input_ids"])[0]
    assert bool(held[columns].all())


def test_mistakes(tiny):
    columns = torch.tensor([3])
    with pytest.raises(ValueError, match="attach"), probe(tiny, [1], columns):
        pass
    family = FAMILIES["llava"]
    duet.attach(tiny, "pyramiddrop", family.budget.only(2))
    with pytest.raises(ValueError, match="pyramiddrop drops tokens"), probe(tiny, [1], columns):
        pass
    duet.attach(tiny, "none")
    for layers in ([0], [1, 99]):
        with pytest.raises(ValueError, match="has layers 1 to"), probe(tiny, layers, columns):
            pass
    with pytest.raises(ValueError, match="batch of 2"), probe(tiny, [1], columns):
        tiny(**family.collate(family.prompts[:2]))
