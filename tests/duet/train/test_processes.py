"""Two processes with ZeRO-2, ZeRO-3 and FSDP2 train like one: losses, saved names and weights, of every family.

In every step one process has only text in its batch and the other a picture.
"""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.families import FAMILIES
from tests.two_ranks import run_jobs

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
#: Of three rows one has no picture; a step takes two of them.
ORDER = [0, 1, 2, 1, 2, 0]
PLAIN = {"max_steps": 3, "optim": "sgd", "max_grad_norm": 0.0}
#: Gradients of these tiny towers are so large that rounding soon decides which tokens stay.
RATES = {"qwen2_5_vl": 1e-6, "qwen2_vl": 1e-6}
#: Drawn per step.
BUDGETS = [
    {"dominant": 6, "contextual": 3, "layers": [2], "ratios": [0.5]},
    {"dominant": 3, "layers": [4], "ratios": [0.0]},
]
ADAM = {"optim": "adamw_torch", "learning_rate": 1e-3, "adam_epsilon": 0.1}
LORA = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}
#: Relative: numbers of this type have 8 significant bits, and gradients of these models magnify their rounding.
BFLOAT16 = 2**-5
#: Runs that are like another one.
LIKE = {"checkpointed": "llava"}
#: The model itself, and another checkpoint.
TEACHERS = ("self", "")


def zero(stage: int, **more: Any) -> dict[str, Any]:
    """Our own file; every weight in parts, however small, and torch's optimizer, which needs no compiler."""
    settings = json.loads((ROOT / "configs" / "deepspeed" / f"zero{stage}.json").read_text())
    if stage == 3:
        settings["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    return {**settings, "zero_force_ds_cpu_optimizer": False, **more}


def sharding(mode: str) -> dict[str, Any]:
    if mode == "fsdp2":
        return {"fsdp": True, "fsdp_config": json.loads((ROOT / "configs" / "fsdp" / "fsdp2.json").read_text())}
    return {"deepspeed": zero(int(mode[-1]))}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for name, family in FAMILIES.items():
        family.build().save_pretrained(root / name)
    other = FAMILIES["llava"].build()
    torch.manual_seed(3)
    other.lm_head.weight.data.normal_(std=0.1)
    other.save_pretrained(root / "other")
    return root


def job(models: Path, out: Path, family: str, training: dict[str, Any], **more: Any) -> dict[str, Any]:
    fixed = {"family": family, "model": str(models / family), "method": "duet", "order": ORDER}
    rate = {"learning_rate": RATES.get(family, 1e-4)}
    return {**fixed, "out": str(out), "training": {**PLAIN, **rate, **training}, **more}


@pytest.fixture(scope="module")
def alone(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of every family; of LLaVA also as the mean of two means, and with LoRA."""
    root = tmp_path_factory.mktemp("alone")
    jobs = [job(models, root / name, name, {"per_device_train_batch_size": 2}) for name in FAMILIES]
    twice = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2, "loss": "original"}
    jobs.append(job(models, root / "original", "llava", twice))
    jobs.append(job(models, root / "lora", "llava", {"per_device_train_batch_size": 2}, lora=LORA))
    jobs.append(job(models, root / "elastic", "llava", {"per_device_train_batch_size": 2}, budgets=BUDGETS))
    for who in TEACHERS:
        taught = {"per_device_train_batch_size": 2, "teacher": who or str(models / "other"), "teacher_weight": 3.0}
        jobs.append(job(models, root / f"taught{who}", "llava", taught))
    jobs.append(job(models, root / "adam", "llava", {"per_device_train_batch_size": 2, **ADAM}))
    jobs.append(job(models, root / "whole", "llava", {"per_device_train_batch_size": 2, "bf16": True}, method=None))
    run_jobs(jobs, root, 1)
    return root


@pytest.mark.parametrize("mode", ["zero2", "zero3", "fsdp2"])
def test_two_processes_are_like_one(mode: str, models: Path, alone: Path, tmp_path: Path) -> None:
    each = {"per_device_train_batch_size": 1, **sharding(mode)}
    jobs = [job(models, tmp_path / name, name, deepcopy(each)) for name in FAMILIES]
    jobs.append(job(models, tmp_path / "original", "llava", {**deepcopy(each), "loss": "original"}))
    jobs.append(job(models, tmp_path / "checkpointed", "llava", {**deepcopy(each), "gradient_checkpointing": True}))
    if mode == "zero3":
        jobs.append(job(models, tmp_path / "lora", "llava", deepcopy(each), lora=LORA))
        jobs.append(job(models, tmp_path / "elastic", "llava", deepcopy(each), budgets=BUDGETS))
    run_jobs(jobs, tmp_path, 2)
    for made in jobs:
        name = Path(made["out"]).name
        check_equal(alone / LIKE.get(name, name), tmp_path / name, Path(made["model"]))
        assert json.loads((tmp_path / name / "losses.json").read_text())["stand_ins"] > 0, name


@pytest.mark.parametrize("mode", ["ddp", "zero2", "zero3", "fsdp2"])
def test_a_teacher_of_two_processes_is_like_that_of_one(mode: str, models: Path, alone: Path, tmp_path: Path) -> None:
    each = {"per_device_train_batch_size": 1, "teacher_weight": 3.0, **({} if mode == "ddp" else sharding(mode))}
    jobs = []
    for who in TEACHERS:
        given = {**deepcopy(each), "teacher": who or str(models / "other")}
        jobs.append(job(models, tmp_path / f"taught{who}", "llava", given))
    run_jobs(jobs, tmp_path, 2)
    for who in TEACHERS:
        check_equal(alone / f"taught{who}", tmp_path / f"taught{who}", models / "llava")
    losses = [json.loads((alone / name / "losses.json").read_text())["losses"] for name in ("llava", "taughtself")]
    assert losses[0] != losses[1]


@pytest.mark.parametrize("mode", ["zero2_offload", "zero3_offload"])
def test_an_optimizer_in_the_host_s_memory_is_like_torch_s(
    mode: str, models: Path, alone: Path, tmp_path: Path
) -> None:
    """Our files as they are: DeepSpeed's own AdamW for CPUs, which it compiles at its first start."""
    settings = json.loads((ROOT / "configs" / "deepspeed" / f"{mode}.json").read_text())
    given = {"per_device_train_batch_size": 1, "deepspeed": settings, **ADAM}
    run_jobs([job(models, tmp_path / "adam", "llava", given)], tmp_path, 2)
    check_equal(alone / "adam", tmp_path / "adam", models / "llava")


@pytest.mark.parametrize("mode", ["zero2", "fsdp2"])
def test_bfloat16_is_like_one_process_but_for_rounding(mode: str, models: Path, alone: Path, tmp_path: Path) -> None:
    """With all tokens, since rounding would also decide which ones stay."""
    given = {"per_device_train_batch_size": 1, "bf16": True, **sharding(mode)}
    run_jobs([job(models, tmp_path / "whole", "llava", given, method=None)], tmp_path, 2)
    made, one = (json.loads((folder / "whole" / "losses.json").read_text())["losses"] for folder in (tmp_path, alone))
    assert made == pytest.approx(one, rel=BFLOAT16)
    assert made[1] < made[0]


@pytest.mark.parametrize(("mode", "processes"), [("zero2", 2), ("zero3", 2), ("fsdp2", 1)])
def test_a_sharded_run_continues(mode: str, processes: int, models: Path, alone: Path, tmp_path: Path) -> None:
    """After two of three steps; FSDP2 also on another number of processes."""
    first = {**sharding(mode), "per_device_train_batch_size": 1, "save_strategy": "steps", "save_steps": 2}
    run_jobs([job(models, tmp_path / "llava", "llava", first, stop_after=2)], tmp_path, 2)
    then = {**sharding(mode), "per_device_train_batch_size": 2 // processes, "save_strategy": "no"}
    run_jobs([job(models, tmp_path / "llava", "llava", then, resume=True)], tmp_path, processes)
    check_equal(alone / "llava", tmp_path / "llava", models / "llava")


def check_equal(one: Path, two: Path, start: Path) -> None:
    """The same losses, names and weights; only the order of sums differs."""
    losses = [json.loads((folder / "losses.json").read_text())["losses"] for folder in (one, two)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4), two.name
    file = next(name for name in ("model.safetensors", "adapter_model.safetensors") if (one / name).is_file())
    weights = [load_file(folder / file) for folder in (one, two)]
    assert weights[1].keys() == weights[0].keys(), two.name
    before = load_file(start / file) if (start / file).is_file() else {}
    for name, value in weights[0].items():
        learned = (value - before.get(name, torch.zeros_like(value))).norm()
        # rounding grows with the gradients, which are large in these models
        assert (weights[1][name] - value).norm() <= 0.02 * learned + 1e-6 * (1 + value.norm()), f"{two.name}: {name}"
