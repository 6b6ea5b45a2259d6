"""A run that is killed at random moments ends like one that was never interrupted, bit for bit; also one of two
processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.training import logged
from tests.two_ranks import ROOT, environment

STEPS, KILLS = 24, 10
#: How two processes share the model, and how many steps they take.
SHARED = {
    "ddp": {},
    "zero2": {"deepspeed": str(ROOT / "configs" / "deepspeed" / "zero2.json")},
    "fsdp2": {"fsdp": True, "fsdp_config": str(ROOT / "configs" / "fsdp" / "fsdp2.json")},
}
SHARED_STEPS = 6
#: Drawn per step.
BUDGETS = [{"dominant": count, "contextual": 2, "layers": [1], "ratios": [0.5]} for count in (10, 4)] + ["none"]


def written(world: Path, output: Path, **training: object) -> Path:
    sections = {
        "model": {"model_name_or_path": str(world / "init"), "freeze": ["model.vision_tower"]},
        "data": {"data_path": f"{world}/train/finetune.json", "image_folder": f"{world}/train/images"},
        "compression": {"method": "duet", "budget": BUDGETS},
        "training": {
            "output_dir": str(output),
            "use_cpu": True,
            "logging_steps": 1,
            "save_steps": 2,
            "max_steps": STEPS,
            "save_total_limit": 2,
            "per_device_train_batch_size": 4,
            "learning_rate": 2e-3,
            "seed": 3,
            "group_by_modality_length": True,
            **training,
        },
    }
    path = output.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(sections))
    return path


def losses(output: Path) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in logged(output) if "loss" in line}


def whole_and_killed(world: Path, folder: Path, kills: int, processes: int = 1, **training: object) -> list[Path]:
    """Folders of a run without interruption, and of one that was killed."""
    outputs = [folder / "whole", folder / "killed"]
    for output, times in zip(outputs, (0, kills), strict=True):
        recipe_file = str(written(world, output, **training))
        words = [sys.executable, "-m", "tests.killing", recipe_file, str(times), "7", str(processes)]
        done = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    whole, killed = (losses(output) for output in outputs)
    assert sorted(whole) == list(range(1, training.get("max_steps", STEPS) + 1))
    assert killed == whole
    weights = [load_file(output / "model.safetensors") for output in outputs]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    return outputs


@pytest.mark.slow
def test_ten_kills_leave_no_trace(world: Path, tmp_path: Path) -> None:
    _, killed = whole_and_killed(world, tmp_path, KILLS)
    ledger = json.loads((killed / "ledger.json").read_text())
    assert len(ledger["sessions"]) >= 2 and ledger["total"]["steps"] >= STEPS


@pytest.mark.slow
@pytest.mark.parametrize("mode", SHARED)
def test_two_processes_killed_together_leave_no_trace(mode: str, world: Path, tmp_path: Path) -> None:
    sizes = {"max_steps": SHARED_STEPS, "per_device_train_batch_size": 2}
    whole_and_killed(world, tmp_path, 1, 2, **sizes, **SHARED[mode])
