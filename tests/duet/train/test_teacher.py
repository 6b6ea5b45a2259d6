"""A teacher with all visual tokens: its loss and gradient by hand, its cost, runs with it, and what is refused."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import duet
from duet.budget import Backbone, Budget
from duet.config import ConfigError, build
from duet.engine.attachment import attached, exchange_compression
from duet.errors import UserError
from duet.train.arguments import Recipe, TrainingArguments
from duet.train.run import run
from duet.train.tally import FORWARD, row_flops
from duet.train.teacher import Teacher, divergence
from duet.train.trainer import DuetTrainer
from playground.mini.generate import write_train
from tests import tiny_llava
from tests.families import FAMILIES
from tests.small_world import random_model

SMALL = {"method": "duet_cover", "budget": 12, "switches": {"attention": "proportional", "positions": "keep"}}


def trainer_of(name: str, root: Path, steps: int = 1, **training: Any) -> DuetTrainer:
    """Of a tiny model with DUET, taught by itself unless told otherwise."""
    family = FAMILIES[name]
    model = family.attach(family.build())
    given = {"use_cpu": True, "disable_tqdm": True, "report_to": "none", "save_strategy": "no", "optim": "sgd"}
    given |= {"teacher": "self", "per_device_train_batch_size": len(family.rows), "max_steps": steps, **training}
    args = TrainingArguments(output_dir=str(root), **given)
    teacher = None if args.teacher is None else Teacher(model, args)
    collate = partial(family.collate, side="right", labels=True)
    return DuetTrainer(model=model, args=args, train_dataset=family.rows, data_collator=collate, teacher=teacher)


def at_labels(model: Any, batch: dict[str, Tensor], compressed: bool) -> Tensor:
    """Logits of the tokens that predict a label, from a forward over whole rows."""
    logits = model(**batch, **({"only_targets": False} if compressed else {})).logits
    rows, columns = (batch["labels"][:, 1:] != -100).nonzero(as_tuple=True)
    return logits[rows, columns]


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_loss_and_gradient_are_those_of_a_kl_written_by_hand(name: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    weight, heat = 0.5, 2.0
    trainer = trainer_of(name, tmp_path, teacher_weight=weight, teacher_temperature=heat)
    batch = family.collate(family.rows, side="right", labels=True)
    labels = int((batch["labels"][:, 1:] != -100).sum())
    trainer.model.train()
    found = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=labels)
    found.backward()
    gradients = {key: value.grad.clone() for key, value in trainer.model.named_parameters() if value.grad is not None}

    with torch.no_grad():
        theirs = (at_labels(family.build().eval(), batch, compressed=False) / heat).softmax(-1)
    student = family.attach(family.build())
    said = student(**batch, only_targets=False)
    rows, columns = (batch["labels"][:, 1:] != -100).nonzero(as_tuple=True)
    own = (said.logits[rows, columns] / heat).softmax(-1)
    kl: Tensor = sum(  # type: ignore[assignment]
        (theirs[token] * (theirs[token].log() - own[token].log())).sum() for token in range(labels)
    )
    expected = said.loss + weight * heat**2 * kl / labels
    expected.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)
    assert found.item() > said.loss.item() * (1 + 1e-4)  # it does say something else
    assert trainer.teacher is not None
    assert trainer.teacher.mean("cpu")["teacher_kl"] == pytest.approx(float(kl.detach()) / labels, rel=1e-3, abs=1e-6)
    for key, value in student.named_parameters():
        if value.grad is not None:
            assert torch.allclose(gradients[key], value.grad, atol=1e-4 * (1 + float(value.grad.abs().max()))), key


def test_with_all_tokens_the_model_has_nothing_to_teach_itself(tmp_path: Path) -> None:
    trainer = trainer_of("llava", tmp_path, teacher_weight=5.0)
    model: Any = trainer.model.train()
    exchange_compression(model, attached(model).compression.with_all_tokens())
    batch = FAMILIES["llava"].collate(FAMILIES["llava"].rows, side="right", labels=True)
    calls: list[int] = []
    model.register_forward_hook(lambda *_: calls.append(1))
    taught = trainer.compute_loss(model, dict(batch))
    trainer.teacher = None
    assert torch.equal(taught, trainer.compute_loss(model, dict(batch))) and len(calls) == 2


def test_accumulated_batches_are_like_one(tmp_path: Path) -> None:
    weights = []
    for size, passes in ((3, 1), (1, 3)):
        given = {"per_device_train_batch_size": size, "gradient_accumulation_steps": passes, "learning_rate": 1e-3}
        trainer = trainer_of("llava", tmp_path / str(size), **given)
        trainer.train()
        weights.append({name: value.detach().clone() for name, value in trainer.model.named_parameters()})
        assert "teacher_kl" in trainer.state.log_history[0] or "teacher_kl" in trainer.state.log_history[-1]
    for name, value in weights[0].items():
        assert torch.allclose(value, weights[1][name], atol=1e-5), name


def test_the_extra_pass_is_in_the_account(tmp_path: Path) -> None:
    plain, taught = (trainer_of("llava", tmp_path / str(who), teacher=who) for who in (None, "self"))
    for trainer in (plain, taught):
        trainer.train()
    family = FAMILIES["llava"]
    sizes = Backbone.from_config(family.build().config)
    extra = 0
    for row in family.rows:
        visual, labels = int((row.ids == tiny_llava.IMAGE).sum()), int((row.labels != -100).sum())
        extra += row_flops(sizes, Budget(), len(row.ids) - visual, visual, labels, FORWARD)
    assert taught.tally.own["flops"] - plain.tally.own["flops"] == extra > 0


def test_divergence_refuses_other_tokens() -> None:
    assert torch.equal(divergence(torch.eye(3), torch.eye(3)), torch.zeros(3))
    with pytest.raises(UserError, match="label stands at a visual token"):
        divergence(torch.eye(3), torch.eye(4))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("taught")
    write_train(root, 8, seed=0, watch=1)
    return root


def recipe(world: Path, out: Path, compression: dict | None, model: dict | None = None, **training: Any) -> Recipe:
    fixed = {"output_dir": str(out), "use_cpu": True, "disable_tqdm": True, "logging_steps": 1, "max_steps": 3}
    fixed |= {"save_strategy": "no", "per_device_train_batch_size": 2, "learning_rate": 1e-3}
    data = {"data_path": str(world / "finetune.json"), "image_folder": str(world / "images")}
    start = {"model_name_or_path": random_model(), **(model or {})}
    sections = {"model": start, "data": data, "training": {**fixed, **training}}
    return build(Recipe, {**sections, **({"compression": compression} if compression else {})})


def logged(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line]


def test_a_checkpoint_teaches_its_equal_nothing_at_first(world: Path, tmp_path: Path) -> None:
    run(recipe(world, tmp_path / "taught", None, teacher=random_model()))
    run(recipe(world, tmp_path / "alone", None))
    taught, alone = logged(tmp_path / "taught"), logged(tmp_path / "alone")
    assert taught[0]["teacher_kl"] == 0 and taught[0]["loss"] == alone[0]["loss"]
    assert taught[-1]["teacher_kl"] > 0 and taught[-1]["loss"] != alone[-1]["loss"]
    assert "teacher_kl" not in alone[0]


@pytest.fixture(scope="module")
def first(world: Path, tmp_path_factory: pytest.TempPathFactory) -> float:
    """The divergence of the first step, by the model itself."""
    out = tmp_path_factory.mktemp("first")
    run(recipe(world, out, SMALL, teacher="self", max_steps=1))
    return float(logged(out)[0]["teacher_kl"])


@pytest.mark.parametrize(
    ("model", "training"),
    [
        ({}, {"teacher": "START"}),
        ({"lora": {"r": 2, "lora_dropout": 0.5}}, {"teacher": "START"}),
        ({"lora": {"r": 2, "lora_dropout": 0.0}}, {"teacher": "self"}),
        ({"freeze": ["tower"]}, {"teacher": "self", "cache_features": "memory"}),
        ({}, {"teacher": "self", "loss": "original", "activation_checkpointing": True}),
    ],
)
def test_runs_are_taught_alike(world: Path, tmp_path: Path, model: dict, training: dict, first: float) -> None:
    """The first step's divergence does not depend on what is trained, nor on which copy of the weights teaches."""
    named = {name: random_model() if value == "START" else value for name, value in training.items()}
    run(recipe(world, tmp_path, SMALL, model, **named, learning_rate=1e-6))
    found = [line["teacher_kl"] for line in logged(tmp_path)]
    assert found[0] == pytest.approx(first, rel=1e-4) and len(found) == 3 and first > 0.01


def test_steps_with_all_tokens_log_no_divergence_by_itself(world: Path, tmp_path: Path) -> None:
    run(recipe(world, tmp_path, {**SMALL, "budget": ["none", 12]}, teacher="self", max_steps=6, learning_rate=1e-6))
    lines = logged(tmp_path)
    assert {("teacher_kl" in line, line["visual_tokens"]) for line in lines} == {(True, 12), (False, 100)}


@pytest.mark.parametrize(
    ("compression", "training", "told"),
    [
        (None, {"teacher": "self"}, "there is nothing to teach"),
        (SMALL, {"teacher": "nowhere/at-all"}, "training.teacher: "),
        (SMALL, {"teacher": "self", "label_smoothing_factor": 0.1}, "label_smoothing_factor"),
    ],
)
def test_a_teacher_that_cannot_teach_is_refused(
    world: Path, tmp_path: Path, compression: dict | None, training: dict, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=told):
        run(recipe(world, tmp_path, compression, **training))


def test_numbers_without_a_teacher_are_refused(world: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="teacher_weight has no effect"):
        recipe(world, tmp_path, SMALL, teacher_weight=0.5)
    with pytest.raises(ConfigError, match="teacher_temperature is 0"):
        recipe(world, tmp_path, SMALL, teacher="self", teacher_temperature=0)


def test_a_teacher_of_other_tokens_is_refused(world: Path, tmp_path: Path) -> None:
    other = FAMILIES["qwen2_5_vl"].build()
    other.save_pretrained(tmp_path / "qwen")
    with pytest.raises(UserError, match="is a qwen2_5_vl, the trained model a llava"):
        run(recipe(world, tmp_path / "out", SMALL, teacher=str(tmp_path / "qwen")))
    mini = "playground/mini/checkpoints/llava-mini"
    with pytest.raises(UserError, match="vocab"):
        run(recipe(world, tmp_path / "out", SMALL, teacher=mini))


def test_a_teacher_is_not_saved_and_does_not_change(world: Path, tmp_path: Path) -> None:
    run(recipe(world, tmp_path / "out", SMALL, teacher=random_model()))
    model, _ = duet.load(str(tmp_path / "out"), method="none")
    start, _ = duet.load(random_model(), method="none")
    assert model.state_dict().keys() == start.state_dict().keys()
    assert any(not torch.equal(value, start.state_dict()[name]) for name, value in model.state_dict().items())
