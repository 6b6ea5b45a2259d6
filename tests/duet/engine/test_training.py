"""Training: the loss of the shortened sequence against the plain restatement, and everything a trainer does with it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import duet
from tests.duet.engine.cases import CASES, SHAPES
from tests.plain_duet import run
from tests.tiny_llava import Row, collate, fill_salient, make_row, twin

LOSS = {"atol": 1e-5, "rtol": 1e-5}
NAMES = ("none", "visionzip", "pyramiddrop", "pyramiddrop_all", "duet_c", "duet_c_s", "duet", "paper", "keep", *SHAPES)


def rows() -> list[Row]:
    """Two turns with one picture, a row of text, one turn with three pictures."""
    return [make_row(1, 5, seed=1, turns=2), make_row(0, 8, seed=2, turns=2), make_row(3, 4, seed=3)]


def wanted_losses(plain: Any, row: Row, name: str) -> Tensor:
    return run(plain, row, CASES[name].plan, labels=row.labels).loss(row.labels)


@pytest.fixture
def training(tiny: Any) -> Any:
    """The shared model in train mode."""
    return tiny.train()


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", NAMES)
def test_loss_of_a_batch_is_the_mean_over_all_its_answer_tokens(training, plain, name, side):
    CASES[name].attach(training)
    with torch.no_grad():
        wanted = [wanted_losses(plain, row, name) for row in rows()]
    alone = [training(**collate([row], labels=True)).loss for row in rows()]
    for loss, losses in zip(alone, wanted, strict=True):
        torch.testing.assert_close(loss, losses.mean(), **LOSS)
    batch = collate(rows(), side, labels=True)
    torch.testing.assert_close(training(**batch).loss, torch.cat(wanted).mean(), **LOSS)
    given = training(**batch, num_items_in_batch=torch.tensor(7)).loss
    torch.testing.assert_close(given, torch.cat(wanted).sum() / 7, **LOSS)


@pytest.mark.parametrize("name", ["pyramiddrop", "duet", "keep", *SHAPES])
def test_gradients_equal_those_of_the_plain_restatement(tiny, name):
    row, model = rows()[0], twin(tiny).train()
    CASES[name].attach(model)
    model(**collate([row], labels=True)).loss.backward()
    other = twin(tiny)
    other.set_attn_implementation("eager")
    wanted_losses(other, row, name).mean().backward()
    for (key, weight), same in zip(model.named_parameters(), other.parameters(), strict=True):
        if weight.grad is None:
            assert same.grad is None or not same.grad.any(), key
        else:
            # without the updates of frozen tokens gradients are larger, and so is what rounding leaves
            atol = 3e-4 if CASES[name].plan.frozen else 1e-4
            torch.testing.assert_close(
                weight.grad, same.grad, atol=atol, rtol=1e-3, msg=lambda text, key=key: f"{key}: {text}"
            )


def test_gradients_reach_projector_decoder_and_tower_but_no_score(training):
    CASES["duet"].attach(training)
    training.requires_grad_(True)
    training(**collate(rows(), labels=True)).loss.backward()
    without = {name for name, weight in training.named_parameters() if weight.grad is None}
    unused = {name for name, _ in training.named_parameters() if "encoder.layers.2" in name or "post_layernorm" in name}
    assert without == unused


def test_scores_carry_no_gradient(training):
    CASES["duet"].attach(training)
    with duet.record(training) as trace:
        training(**collate(rows(), labels=True)).loss.backward()
    assert trace.stages and not any(scores.requires_grad for stage in trace.stages for scores in stage.scores)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", ["duet", "keep", "pyramiddrop", *SHAPES])
def test_gradient_checkpointing_changes_nothing(tiny, name, reentrant):
    if reentrant and CASES[name].plan.frozen:
        pytest.skip("refused, see below")
    found = []
    for checkpointing in (False, True):
        model = twin(tiny).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
            model.enable_input_require_grads()
        CASES[name].attach(model)
        loss = model(**collate(rows(), labels=True)).loss
        loss.backward()
        found.append((loss, model.model.multi_modal_projector.linear_1.weight.grad, model.lm_head.weight.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_frozen_tokens_refuse_reentrant_checkpointing(tiny):
    model = twin(tiny).train()
    model.gradient_checkpointing_enable({"use_reentrant": True})
    CASES["frozen"].attach(model)
    with pytest.raises(ValueError, match="'use_reentrant': False"):
        model(**collate(rows(), labels=True))
    model.eval()(**collate(rows()))


def test_logits_only_where_a_label_is_predicted(training):
    CASES["duet"].attach(training)
    out = training(**collate(rows(), labels=True))
    targets = sum(int((row.labels != -100).sum()) for row in rows())
    assert out.logits.shape == (1, targets, 96)


@torch.no_grad()
def test_eval_with_labels_gives_the_loss_and_all_logits(tiny):
    CASES["duet"].attach(tiny)
    batch = collate(rows(), labels=True)
    out = tiny(**batch)
    assert out.logits.shape[:2] == batch["labels"].shape
    torch.testing.assert_close(out.loss, tiny.train()(**batch).loss, **LOSS)


@pytest.mark.parametrize("frozen", ["language_model", "everything else"])
def test_parts_of_the_model_may_be_in_eval_mode(training, frozen):
    CASES["duet"].attach(training)
    batch = collate(rows(), labels=True)
    wanted = training(**batch).loss
    if frozen == "everything else":
        training.eval()
    training.model.language_model.train(frozen != "language_model")
    torch.testing.assert_close(training(**batch).loss, wanted, **LOSS)


def test_a_row_without_answers_changes_nothing(training):
    CASES["duet"].attach(training)
    silent = make_row(1, 6, seed=4)
    silent.labels = torch.full_like(silent.labels, -100)
    wanted = training(**collate(rows(), labels=True)).loss
    torch.testing.assert_close(training(**collate([*rows(), silent], labels=True)).loss, wanted, **LOSS)
    nothing = training(**collate([silent], labels=True), num_items_in_batch=torch.tensor(5)).loss
    assert nothing == 0
    nothing.backward()


def test_bfloat16_autocast(training):
    CASES["duet"].attach(training)
    batch = collate(rows(), labels=True)
    wanted = training(**batch).loss.item()
    with torch.autocast("cpu", torch.bfloat16):
        loss = training(**batch).loss
    loss.backward()
    assert loss.item() == pytest.approx(wanted, rel=0.1)
    assert training.model.multi_modal_projector.linear_1.weight.grad.isfinite().all()


def test_text_alone_trains_as_stock(training):
    batch = collate([rows()[1]], labels=True)
    wanted = training(**batch)
    CASES["duet"].attach(training)
    found = training(**batch)
    assert torch.equal(found.loss, wanted.loss) and torch.equal(found.logits, wanted.logits)


def test_answers_of_all_turns_do_not_vote(training):
    row = rows()[0]
    duet.attach(training, "duet_c_s", CASES["duet_c_s"].budget, salient=lambda ids, text: text)
    with duet.record(training) as trace:
        training(**collate([row], labels=True))
    asked = [column for column in range(18, len(row.ids)) if row.labels[column] == -100]
    assert trace.stages[0].voters[0].tolist() == asked
    duet.attach(training, "pyramiddrop", CASES["pyramiddrop"].budget)
    with duet.record(training) as trace:
        training(**collate([row], labels=True))
    starts = [column for column in asked if column + 1 < len(row.ids) and row.labels[column + 1] != -100]
    assert trace.stages[0].voters[0].tolist() == starts and len(starts) == 2


def test_the_finder_of_salient_words_sees_each_row(training):
    seen = []

    def finder(ids: Tensor, text: Tensor) -> Tensor:
        seen.append((len(ids), int(text.sum())))
        return fill_salient(ids, text)

    duet.attach(training, "duet_c_s", CASES["duet_c_s"].budget, salient=finder)
    batch = collate(rows(), labels=True)
    training(**batch)
    longest = batch["input_ids"].shape[1]
    # one word after the pictures, and the questions of all turns; a row without pictures has nothing to vote on
    assert seen == [(longest, 1 + 2 * 5), (longest, 0), (longest, 1 + 4)]
