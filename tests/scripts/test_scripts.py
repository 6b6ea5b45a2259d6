"""The bash scripts under the original names: thin, and the commands that they run are ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from duet.registry import ADAPTERS
from duet.report.paper import read_table
from duet.report.plan import CLASSES, Plan, commands

SCRIPTS = Path(__file__).parents[2] / "scripts"
TASKS = {"pope": "pope", "gqa": "gqa", "textvqa": "textvqa", "mme": "mme", "sqa": "scienceqa", "seed": "seed"}


def dry_run(script: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """What a script would run, from another folder than the repository's."""
    clean = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment = {**clean, "DRY_RUN": "1", "PYTHON": sys.executable, "PYTHONPATH": str(SCRIPTS.parent), **variables}
    return subprocess.run(["bash", str(script)], env=environment, cwd="/", capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("name", "task"), TASKS.items())
def test_benchmark_scripts(name, task):
    done = dry_run(SCRIPTS / "llava" / "v1_5" / "pdrop_eval" / f"{name}.sh")
    assert done.stdout == (
        f"{sys.executable} -m duet.cli.main eval --model llava-hf/llava-1.5-7b-hf --method duet --tasks {task} "
        "--data ./playground/data/eval --batch-size 16 --output outputs/llava-1.5-7b-hf/duet@llava15_192 "
        "--budget llava15_192\n"
    )


def test_overrides():
    done = dry_run(
        SCRIPTS / "llava" / "v1_5" / "pdrop_eval" / "pope.sh",
        MODEL="checkpoints/own", DATA="data", METHOD="none", BATCH_SIZE="4", NPROC="8",
    )
    assert done.stdout == (
        "accelerate launch --num_processes 8 -m duet.cli.main eval --model checkpoints/own --method none --tasks pope "
        "--data data --batch-size 4 --output outputs/own/none@full\n"
    )


@pytest.mark.parametrize("number", range(1, 12))
def test_table_scripts_print_the_plan_or_end_with_2(number):
    table = read_table(number)
    done = dry_run(SCRIPTS / "paper" / f"table{number}.sh", RECIPE="recipe.yaml", NPROC="2")
    if CLASSES[table.backbone] in ADAPTERS:
        assert done.stdout.splitlines() == list(commands(table, Plan(recipe="recipe.yaml", processes=2)))
    else:
        assert done.returncode == 2
        assert done.stdout == ""
        assert "which this version does not run yet" in done.stderr


@pytest.mark.parametrize("path", sorted(SCRIPTS.rglob("*.sh")), ids=lambda path: path.stem)
def test_scripts_are_bash_and_thin(path):
    assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0
    text = path.read_text(encoding="utf-8")
    assert text.startswith("#!/usr/bin/env bash\n# ")
    assert "/home/" not in text and "/root/" not in text
