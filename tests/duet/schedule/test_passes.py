"""Passes of one sample: what shared beginnings give is what the whole prompt gives, and it costs what is counted."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import duet
from duet.budget import Backbone, Budget
from duet.engine.attachment import attached
from duet.schedule.passes import Forced, Meter, boundaries, divergence, force, full_answer
from tests.families import Family

pytestmark = pytest.mark.usefixtures("no_grad")

CLOSE = {"atol": 3e-4, "rtol": 0}
ANSWER = torch.tensor([5, 9, 4])


def shown(family: Family, model: Any) -> dict[str, Any]:
    """The first prompt with a picture."""
    for row in family.prompts:
        batch = family.collate([row])
        if any("pixel" in name for name in batch):
            return batch
    raise AssertionError


def opened(family: Family, positions: str = "keep") -> tuple[Any, dict[str, Any], Meter]:
    model = family.attach(family.build(), "duet", positions=positions)
    return model, shown(family, model), Meter(Backbone.from_config(model.config).decoder)


def forced(model: Any, inputs: dict[str, Any], meter: Meter, budget: Budget | None = None) -> Forced:
    compression = attached(model).compression
    parts = compression.with_all_tokens() if budget is None else compression.under(budget, 6)
    return force(model, parts, inputs, ANSWER, meter)


def test_the_full_pass_gives_the_likelihood_of_the_answer(family):
    model, inputs, meter = opened(family)
    one = forced(model, inputs, meter)
    states, found = one.run(one.start(), whole=True)
    assert len(states) == 6 and meter.prefills == 1
    duet.attach(model, "none")
    wanted = duet.loglikelihood(model, inputs, [[ANSWER]])[0][0].tokens
    torch.testing.assert_close(found.gather(1, ANSWER[:, None])[:, 0], wanted, **CLOSE)


@pytest.mark.parametrize("positions", ["keep", "renumber"])
def test_shared_beginnings_give_what_the_whole_prompt_gives(family, positions):
    model, inputs, meter = opened(family, positions)
    for budget in (None, Budget(dominant=4, contextual=2, cluster_width=2)):
        one = forced(model, inputs, meter, budget)
        states, _ = one.run(one.start())
        for layer in (1, 4):
            gone = one.run(one.text_of(states[layer]), layer)[1]
            still = one.run(states[layer], layer, Budget(frozen=layer))[1]
            exit_ = Budget(layers=(layer,), ratios=(0.0,))
            torch.testing.assert_close(gone, one.run(one.start(), 0, exit_)[1], **CLOSE)
            torch.testing.assert_close(still, one.run(one.start(), 0, Budget(frozen=layer))[1], **CLOSE)
            back = one.run(states[layer], layer, Budget(away=(layer,)))[1]
            torch.testing.assert_close(back, one.run(one.start(), 0, Budget(away=(layer,)))[1], **CLOSE)


def test_a_budget_measured_whole_is_what_the_attached_model_says(family):
    model, inputs, meter = opened(family)
    budget = Budget(dominant=4, contextual=2, cluster_width=2, layers=(3,), ratios=(0.5,), entry=1, frozen=4)
    one = force(model, attached(model).compression.under(budget, 6), inputs, ANSWER, meter)
    found = one.run(one.start(), 0, budget)[1]
    duet.attach(model, "duet", budget, positions="keep")
    wanted = duet.loglikelihood(model, inputs, [[ANSWER]])[0][0].tokens
    torch.testing.assert_close(found.gather(1, ANSWER[:, None])[:, 0], wanted, **CLOSE)


def test_the_answer_is_the_full_models_and_the_method_stays(family):
    model, inputs, _ = opened(family)
    compression = attached(model).compression
    found = full_answer(model, compression.with_all_tokens(), inputs, 4)
    duet.detach(model)
    wanted = model.generate(**inputs, max_new_tokens=4, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert found.tolist() == wanted.tolist()


def test_a_late_withdrawal_costs_a_fraction_of_a_prefill(family):
    model, inputs, meter = opened(family)
    one = forced(model, inputs, meter)
    states, _ = one.run(one.start(), whole=True)
    before = meter.spent
    one.run(one.text_of(states[4]), 4)
    gone = meter.spent - before
    one.run(states[4], 4, Budget(frozen=4))
    still = meter.spent - before - gone
    assert 0 < gone < still < meter.full / 3


def test_divergence():
    same = torch.tensor([[0.5, 0.5], [0.9, 0.1]]).log()
    other = torch.tensor([[0.25, 0.75], [0.9, 0.1]]).log()
    assert divergence(same, same) == 0
    assert divergence(same, other) == pytest.approx((0.5 * 0.6931472 + 0.5 * -0.4054651) / 2, abs=1e-6)


def test_boundaries():
    assert list(boundaries(8)) == [1, 2, 3, 4, 5, 6, 7]
    assert list(boundaries(32)) == list(range(2, 32, 2))
    assert 13 <= len(boundaries(28)) <= 27
