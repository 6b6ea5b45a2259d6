"""scripts/paper/beyond.sh: its plan for every set, and the reduced form from curves to tables."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from duet.eval.running.grid import Grid
from tests.small_world import random_model, write_questions

ROOT = Path(__file__).parents[2]


def beyond(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    clean = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment = {
        **clean,
        "PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        **variables,
    }
    script = str(ROOT / "scripts" / "paper" / "beyond.sh")
    return subprocess.run(
        ["bash", script, *words], env=environment, cwd="/", capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("name", "grids"),
    [
        ("llava", ["llava15", "llava15", "llava15_rules"]),
        ("qwen", ["qwen25vl"]),
        ("video", ["videollava"]),
        ("mini", ["mini", "mini"]),
    ],
)
def test_the_plan(name, grids):
    done = beyond(name, DRY_RUN="1", SAMPLES="samples.jsonl")
    lines = done.stdout.splitlines()
    assert [line.split()[4] for line in lines if " sweep " in line] == [
        f"configs/eval/beyond_{grid}.yaml" for grid in grids
    ]
    assert " schedule " in lines[0] and "--samples samples.jsonl" in lines[0]
    assert all("budgets.calibrated=" in line for line in lines if " sweep " in line and "_rules" not in line)
    assert "hours" in done.stderr and done.returncode == 0
    assert not any("calibrated" in line for line in beyond(name, DRY_RUN="1").stdout.splitlines())


@pytest.mark.parametrize("name", ["llava15", "llava15_rules", "qwen25vl", "videollava", "mini"])
def test_the_grids_are_whole(name):
    from duet.config import load_config

    grid = load_config(Grid, ROOT / "configs" / "eval" / f"beyond_{name}.yaml")
    assert len(list(grid.cells())) > 4 and grid.limit


def test_an_unknown_set():
    done = beyond("llama")
    assert done.returncode == 2 and "choose llava, qwen, video or mini" in done.stderr


def test_the_reduced_form_runs(tmp_path):
    write_questions(tmp_path / "data", "pope", "gqa", "textvqa", count=2)
    done = beyond(
        "mini",
        MODEL=random_model(),
        DATA=str(tmp_path / "data"),
        OUTPUT=str(tmp_path / "out"),
        LIMIT="2",
        BATCH_SIZE="2",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("**Paired differences**") == 3
    assert len(list((tmp_path / "out").rglob("metrics.json"))) == 3 * 18
