"""The head at answers only: loss and gradients of the stock forward, and how many rows the head sees."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from duet.train.answers import AnswerRows
from tests.families import FAMILIES


@pytest.mark.parametrize(
    ("name", "method", "training"),
    [("llava", "duet", True), ("llava", "none", False), ("llava", "duet", False), ("qwen2_vl", "none", True)],
)
def test_loss_and_gradients_are_those_of_the_stock_forward(name: str, method: str, training: bool) -> None:
    family = FAMILIES[name]
    stock = family.build()
    model = deepcopy(stock)
    if method != "none":
        family.attach(stock, method)
        family.attach(model, method)
    AnswerRows(model)
    seen = []
    model.get_output_embeddings().register_forward_hook(lambda head, args, output: seen.append(args[0].shape[:-1]))
    for rows in (family.rows, [row for row in family.rows if not _has_pixels(family.collate([row]))]):
        batch = family.collate(rows, side="right", labels=True)
        labels = int((batch["labels"][:, 1:] != -100).sum())
        losses = []
        for each in (stock, model):
            each.zero_grad()
            each.train(training)
            loss = each(**batch, num_items_in_batch=7).loss
            loss.backward()
            losses.append(loss)
        torch.testing.assert_close(losses[1], losses[0])
        assert seen[-1] == (1, labels)
        for (where, one), other in zip(model.named_parameters(), stock.parameters(), strict=True):
            assert (one.grad is None) == (other.grad is None), where
            if one.grad is not None:
                torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-5, msg=where)


def test_removed_hooks_leave_the_model_stock() -> None:
    family = FAMILIES["llava"]
    model = family.build()
    batch = family.collate(family.rows, labels=True)
    wanted = model(**batch).logits
    hooks = AnswerRows(model)
    assert model(**batch).logits.shape[:2] != wanted.shape[:2]
    assert torch.equal(model(**{**batch, "labels": None}).logits, wanted)
    hooks.remove()
    assert torch.equal(model(**batch).logits, wanted)


def _has_pixels(batch: dict) -> bool:
    return any(key.startswith("pixel_values") for key in batch)
