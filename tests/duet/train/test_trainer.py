"""The optimizer's settings: rate and weight decay of every parameter, including the projector's."""

from __future__ import annotations

from pathlib import Path

import pytest

from duet.train.arguments import TrainingArguments
from duet.train.trainer import DuetTrainer
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
