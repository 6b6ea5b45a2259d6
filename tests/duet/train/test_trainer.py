"""The optimizer's settings: rate and decay of every parameter, including the projector's; rows without a label."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from duet.train.arguments import TrainingArguments
from duet.train.trainer import DuetTrainer
from tests.families import FAMILIES
from tests.tiny_llava import tiny_llava


@pytest.mark.parametrize("rate", [None, 0.25])
def test_every_parameter_has_its_rate_and_its_decay(tmp_path: Path, rate: float | None) -> None:
    """Matrices decay, the projector's too; biases and norms don't."""
    model = tiny_llava()
    arguments = TrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, learning_rate=0.5, weight_decay=0.125, mm_projector_lr=rate
    )
    optimizer = DuetTrainer(model=model, args=arguments).create_optimizer()
    found = {id(value): group for group in optimizer.param_groups for value in group["params"]}
    decayed = {True: 0, False: 0}
    for name, value in model.named_parameters():
        group, projector = found.pop(id(value)), "multi_modal_projector" in name
        assert group["lr"] == (rate if projector and rate is not None else 0.5), name
        decays = not (name.endswith(".bias") or "norm" in name)
        assert group["weight_decay"] == (0.125 if decays else 0.0), name
        decayed[projector] += decays
    assert not found and decayed[True] == 2 and decayed[False] > 2


@pytest.mark.parametrize("method", [None, "duet"])
@pytest.mark.parametrize("loss", ["tokens", "original"])
def test_rows_that_lost_their_labels_teach_nothing(tmp_path: Path, loss: str, method: str | None) -> None:
    """As with the original's tokenization; the mean over no label is not a number."""
    family = FAMILIES["llava"]
    model = family.build() if method is None else family.attach(family.build(), method)
    rows = [replace(row, labels=torch.full_like(row.labels, -100)) for row in family.rows[:2]]
    given = {"output_dir": str(tmp_path), "use_cpu": True, "disable_tqdm": True, "report_to": "none", "loss": loss}
    sizes = {"max_steps": 1, "per_device_train_batch_size": 2, "save_strategy": "no", "optim": "sgd"}
    collate = partial(family.collate, side="right", labels=True)
    before = {name: value.clone() for name, value in model.named_parameters()}
    trainer = DuetTrainer(
        model=model, args=TrainingArguments(**given, **sizes), train_dataset=rows, data_collator=collate
    )
    assert trainer.train().training_loss == 0
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())
