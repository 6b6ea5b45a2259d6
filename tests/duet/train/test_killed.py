"""A run that is killed ten times at random moments ends like one that was never interrupted, bit for bit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.duet.train.test_run import recipe, world  # noqa: F401
from tests.two_ranks import ROOT, environment

STEPS, KILLS = 24, 10
#: Drawn per step.
BUDGETS = [{"dominant": count, "contextual": 2, "layers": [1], "ratios": [0.5]} for count in (10, 4)] + ["none"]


def written(world: Path, output: Path) -> Path:  # noqa: F811
    made = recipe(world, output)
    sections = {
        "model": {"model_name_or_path": made.model.model_name_or_path, "freeze": ["model.vision_tower"]},
        "data": {"data_path": made.data.data_path, "image_folder": made.data.image_folder},
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
        },
    }
    path = output.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(sections))
    return path


def losses(output: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


@pytest.mark.slow
def test_ten_kills_leave_no_trace(world: Path, tmp_path: Path) -> None:  # noqa: F811
    outputs = [tmp_path / "whole", tmp_path / "killed"]
    for output, kills in zip(outputs, (0, KILLS), strict=True):
        words = [sys.executable, "-m", "tests.killing", str(written(world, output)), str(kills), "7"]
        done = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    whole, killed = (losses(output) for output in outputs)
    assert sorted(whole) == list(range(1, STEPS + 1))
    assert killed == whole
    weights = [load_file(output / "model.safetensors") for output in outputs]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    ledger = json.loads((outputs[1] / "ledger.json").read_text())
    assert len(ledger["sessions"]) >= 2 and ledger["total"]["steps"] >= STEPS
