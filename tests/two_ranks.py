"""Runs small trainings in two processes (gloo, CPU), or in one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
#: The first run compiles an operation of DeepSpeed, which takes minutes on a busy machine.
LIMIT = 900


def run_jobs(jobs: list[dict[str, Any]], folder: Path, processes: int = 2) -> None:
    """Run the jobs of `tests/rank_worker.py` one after the other in the same processes."""
    file = folder / "jobs.json"
    file.write_text(json.dumps(jobs))
    launch(["-m", "tests.rank_worker", str(file)], processes)


def launch(words: list[str], processes: int) -> None:
    """Run a module under torchrun.

    Raises:
        AssertionError: it failed; with the end of its output.
    """
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    done = subprocess.run(
        [*start, *words], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-12000:]}"


def environment() -> dict[str, str]:
    """One thread per process, nothing from the network."""
    fixed = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "DS_ACCELERATOR": "cpu"}
    return {**os.environ, **fixed, "PYTHONPATH": str(ROOT)}
