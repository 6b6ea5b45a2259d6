"""Stand-in pictures: nothing is learned from them, and nobody gets one without need."""

from __future__ import annotations

import pytest
import torch

from duet.train import standins
from duet.train.standins import StandIns
from tests.families import FAMILIES


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_loss_and_gradients_stay_those_of_the_own_rows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    family = FAMILIES[name]
    collate = lambda rows: family.collate(rows, side="right", labels=True)  # noqa: E731
    alone = [row for row in family.rows if not any("pixel" in key for key in family.collate([row]))]
    pictured = next(row for row in family.rows if any("pixel" in key for key in family.collate([row])))
    kind = "image" if any(key in family.collate([pictured]) for key in standins.KINDS["image"]) else "video"
    monkeypatch.setattr(standins, "agree", lambda values, device: [float(each == kind) for each in standins.KINDS])
    batch = collate(alone)
    [evened] = StandIns(lambda kind: pictured, collate, 0).even_out([batch], torch.device("cpu"))
    assert len(evened["input_ids"]) == len(batch["input_ids"]) + 1
    assert any(key.startswith("pixel_values") for key in evened)
    model = family.attach(family.build()).train()
    losses, gradients = [], []
    for each in (batch, evened):
        model.zero_grad()
        loss = model(**each).loss
        loss.backward()
        losses.append(loss)
        gradients.append({where: value.grad for where, value in model.named_parameters()})
    torch.testing.assert_close(losses[1], losses[0])
    towers = 0
    for where, own in gradients[0].items():
        other = gradients[1][where]
        if own is not None:
            assert (other - own).norm() <= 1e-4 * own.norm() + 1e-6, where
        elif other is not None:
            assert not other.any(), where
            towers += 1
    assert towers  # they have run, and take part in the exchange of gradients


def test_nobody_gets_one_without_need(monkeypatch: pytest.MonkeyPatch) -> None:
    family = FAMILIES["llava"]
    text = family.collate([family.rows[2]], side="right", labels=True)
    pictured = family.collate([family.rows[0]], side="right", labels=True)
    made = StandIns(lambda kind: family.rows[0], family.collate, 0)
    assert made.even_out([text, pictured], torch.device("cpu")) == [text, pictured]
    assert made.added == 0
