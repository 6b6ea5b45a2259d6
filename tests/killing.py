"""Runs a recipe again and again, and kills it each time at a random moment; then lets it end.

    python -m tests.killing recipe.yaml KILLS SEED

Each run is a fork of this process, which has imported everything and computed nothing.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

from duet.config import load_config
from duet.train.arguments import Recipe
from duet.train.run import run

#: Seconds that a run may take.
LIMIT = 600


def main() -> None:
    path, kills, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    recipe = load_config(Recipe, path)
    steps, log = recipe.training.max_steps, Path(str(recipe.training.output_dir), "metrics.jsonl")
    moments = random.Random(seed)
    for kill in range(kills):
        child = start(path)
        wait_for(log, child, 1 + kill * (steps - 2) // kills)
        time.sleep(moments.random() * 0.3)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    _, status = os.waitpid(start(path), 0)
    sys.exit(os.waitstatus_to_exitcode(status))


def start(path: str) -> int:
    """Run the recipe in a fork; returns its process."""
    child = os.fork()
    if child:
        return child
    try:
        run(load_config(Recipe, path))
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def wait_for(log: Path, child: int, step: int) -> None:
    """Wait until a step has been logged."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        lines = log.read_text().splitlines() if log.is_file() else []
        if any(json.loads(line)["step"] >= step for line in lines if line.endswith("}")):
            return
        if os.waitpid(child, os.WNOHANG) != (0, 0):
            raise SystemExit("the run has ended by itself")
        time.sleep(0.02)
    raise SystemExit(f"step {step} was not reached")


if __name__ == "__main__":
    main()
