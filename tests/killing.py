"""Runs a recipe again and again, and kills it each time at a random moment; then lets it end.

    python -m tests.killing recipe.yaml KILLS SEED [PROCESSES]

Each run is one or several forks of this process, which has imported everything and computed nothing.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sys
import time
import traceback
from pathlib import Path

from duet.config import load_config
from duet.train.arguments import Recipe
from duet.train.run import train

#: Seconds that a run may take.
LIMIT = 600


def main() -> None:
    path, kills, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    processes = int(sys.argv[4]) if len(sys.argv) > 4 else 1
    recipe = load_config(Recipe, path)
    steps, log = recipe.training.max_steps, Path(str(recipe.training.output_dir), "metrics.jsonl")
    moments = random.Random(seed)
    for kill in range(kills):
        children = start(path, processes)
        wait_for(log, children, 1 + kill * (steps - 2) // kills)
        time.sleep(moments.random() * 0.3)
        moments.shuffle(children)
        for child in children:
            os.kill(child, signal.SIGKILL)
        for child in children:
            os.waitpid(child, 0)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in start(path, processes)]
    sys.exit(max(map(abs, codes)))


def start(path: str, processes: int) -> list[int]:
    """Run the recipe in forks; returns them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return [_start(path, processes, rank, port) for rank in range(processes)]


def _start(path: str, processes: int, rank: int, port: int) -> int:
    child = os.fork()
    if child:
        return child
    if processes > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    try:
        os._exit(train([path]))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def wait_for(log: Path, children: list[int], step: int) -> None:
    """Wait until a step has been logged."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        lines = log.read_text().splitlines() if log.is_file() else []
        if any(json.loads(line)["step"] >= step for line in lines if line.endswith("}")):
            return
        if any(os.waitpid(child, os.WNOHANG) != (0, 0) for child in children):
            raise SystemExit("the run has ended by itself")
        time.sleep(0.02)
    raise SystemExit(f"step {step} was not reached")


if __name__ == "__main__":
    main()
