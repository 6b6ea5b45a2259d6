"""Layers without visual tokens, which come back after them: against the stock model with masked layers; refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import duet
from duet.budget import Budget
from duet.engine.attachment import attached
from duet.errors import UserError
from tests.families import FAMILIES, Family

AWAY = (2, 4)


def places(family: Family, ids: Tensor) -> Tensor:
    """`[1, T]` bool, the columns of pictures."""
    attachment = attached(duet.attach(family.build(), "none", Budget(away=AWAY)))
    return attachment.compression.vision.placeholders(attachment.body, ids)


def shown(family: Family) -> list[Any]:
    """The rows with pictures."""
    return [row for row in family.rows if bool(places(family, row.ids[None]).any())]


def blinded(model: Any, placeholder: Tensor) -> Any:
    """A stock model whose layers `AWAY` see no placeholder and leave its state as it is; `placeholder [1, T]`."""
    size = placeholder.shape[1]
    sees = torch.ones(size, size).tril().bool() & ~placeholder | torch.eye(size).bool()

    def mask(layer: Any, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        return args, {**kwargs, "attention_mask": sees[None, None]}

    def carry(layer: Any, args: tuple, kwargs: dict[str, Any], output: Tensor) -> Tensor:
        return torch.where(placeholder[..., None], args[0], output)

    for number in AWAY:
        layer = model.model.language_model.layers[number]
        layer.register_forward_pre_hook(mask, with_kwargs=True)
        layer.register_forward_hook(carry, with_kwargs=True)
    return model


def test_logits_and_gradients_are_those_of_masked_layers(family):
    """All tokens, so the stock model can be the reference: M-RoPE, DeepStack and newline tokens included."""
    for row in shown(family):
        batch = family.collate([row], labels=True)
        labels = batch.pop("labels")
        found = []
        stock = blinded(family.build(), places(family, batch["input_ids"]))
        for model in (duet.attach(family.build(), "none", Budget(away=AWAY)), stock):
            logits = model(**batch).logits
            (logits[labels != -100].log_softmax(-1) ** 2).sum().backward()
            grads = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
            found.append((logits.detach(), grads))
        (ours, gradients), (wanted, theirs) = found
        torch.testing.assert_close(ours, wanted, atol=3e-4, rtol=0)
        assert gradients.keys() == theirs.keys()
        scale = max(float(gradient.abs().max()) for gradient in theirs.values())
        for name, gradient in theirs.items():
            torch.testing.assert_close(gradients[name], gradient, atol=1e-5 * scale, rtol=1e-3, msg=name)


@torch.no_grad()
def test_layers_that_they_are_away_from_run_on_the_text_alone(family):
    model = duet.attach(family.build(), "none", Budget(away=AWAY))
    rows: list[int] = []
    for layer in model.model.language_model.layers:
        layer.register_forward_hook(lambda module, args, output: rows.append(args[0].shape[1]))
    row = shown(family)[0]
    with duet.record(model) as trace:
        cache = model(**family.collate([family.prompt_of(row)])).past_key_values
    text, whole = trace.lengths[2][0], trace.lengths[0][0]
    assert text < whole
    assert rows == [whole, whole, text, whole, text, whole] == [layer.get_seq_length() for layer in cache.layers]
    full = trace.full[0]
    assert trace.counts() == {0: full, 2: 0, 3: full, 4: 0, 5: full}
    assert trace.reduced == []


def test_a_rank_by_the_layer_before_needs_them_there():
    """FastV ranks in layer 3, where there is nothing to rank; in layer 4 there is."""
    family = FAMILIES["llava"]
    budget = Budget(layers=(4,), ratios=(0.5,), away=(3,))
    with pytest.raises(UserError, match=r"fastv ranks .* before the one after layer 4 they are away \(layer 3"):
        duet.attach(family.build(), "fastv", budget)
    duet.attach(family.build(), "fastv", replace(budget, layers=(5,)))
    duet.attach(family.build(), "pyramiddrop", budget)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"away": (0,)}, r"away in layer 0: visual tokens enter after layer 0, .* from layer 1 on"),
        ({"entry": 1, "away": (1,)}, r"away in layer 1: visual tokens enter after layer 1"),
        ({"away": (3, 5)}, r"away in layer 5: the language model has layers 0 to 5, .* for an exit"),
        ({"away": (1, 2)}, r"can't be dropped after layer 2: they are away in layers 1 to 2 .* after layer 3"),
        ({"away": (4,)}, r"can't be dropped after layer 4: they are away in layer 4 "),
        ({"away": (3,), "frozen": 3}, r"both frozen and away in layer 3"),
    ],
)
def test_what_does_not_fit_is_refused_when_it_is_attached(changes, message):
    family = FAMILIES["llava"]
    budget = replace(family.budget, layers=(2, 4), ratios=(0.5, 0.25), **changes)
    with pytest.raises(UserError, match=message):
        duet.attach(family.build(), "duet", budget)


@pytest.mark.parametrize(
    ("away", "message"),
    [((3, 2), "must ascend"), ((0.5,), "list of layers"), (3, "away is 3; give a list"), ((True,), "list of layers")],
)
def test_the_field_is_checked(away, message):
    with pytest.raises(UserError, match=message):
        Budget(away=away)
