"""Where the time of a prefill goes that operations do not explain: waiting for the host, and the slowest kernels.

    python benchmarks/gaps.py                                                  # narrow model, CPU, one thread
    python benchmarks/gaps.py --shape llava15-7b --device cuda --dtype bfloat16 --batch-size 16

For the stock model and a method: wall time of a prefill, time in which the device was busy (the sum of its kernels; on
a CPU that of all operators), the difference, the number of kernels, and the ten operators that took longest. Profiling
itself costs time, so ratios of configurations are in `benchmarks/prefill.py`, not here.
"""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.profiler import ProfilerActivity, profile

# A script's own folder is on the path, the root of the repository is not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.command import model_parser, run, start
from benchmarks.configurations import configurations
from benchmarks.families import Asked, build_prompt
from benchmarks.runs import prefill

if TYPE_CHECKING:
    from collections.abc import Sequence

SHOWN = 10
PREFIX = "gaps-"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, print; returns the exit code."""
    return run(_parser(), measure, as_markdown, PREFIX, arguments)


def measure(options: Namespace) -> dict[str, Any]:
    """One row per configuration.

    Raises:
        UserError: a device that this machine does not have.
    """
    model, facts = start(options)
    prompt = build_prompt(model, Asked(options.batch_size, 0, 0), options.text)
    rows = []
    for turn in configurations(model, prompt, ["none", options.method], [options.average]):
        with turn.attached(model):
            prefill(model, prompt)
            rows.append({"name": turn.name, **_profiled(model, prompt, model.device)})
    return {**facts, "rows": rows}


def _profiled(model: Any, prompt: Any, device: torch.device) -> dict[str, Any]:
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiler:
        start = time.perf_counter()
        prefill(model, prompt)
        if on_gpu:
            torch.cuda.synchronize()
        wall = 1e3 * (time.perf_counter() - start)
    own = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    events = sorted(profiler.key_averages(), key=lambda event: -getattr(event, own))
    busy = sum(getattr(event, own) for event in events) / 1e3
    return {
        "wall_ms": wall,
        "busy_ms": busy,
        "waiting_ms": max(wall - busy, 0.0),
        "kernels": sum(event.count for event in events if getattr(event, own) > 0),
        "slowest": [
            {"name": event.key, "ms": getattr(event, own) / 1e3, "count": event.count} for event in events[:SHOWN]
        ],
    }


def as_markdown(result: dict[str, Any]) -> str:
    """The rows as a table, and the slowest operators of each."""
    options = result["options"]
    lines = [
        f"# Gaps of the prefill, {options['shape']}, {options['dtype']}, batch {options['batch_size']}",
        "",
        "| configuration | wall, ms | device busy, ms | waiting, ms | kernels |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in result["rows"]:
        times = " | ".join(f"{row[name]:.1f}" for name in ("wall_ms", "busy_ms", "waiting_ms"))
        lines.append(f"| {row['name']} | {times} | {row['kernels']} |")
    for row in result["rows"]:
        lines += ["", f"Slowest operators, {row['name']}:", ""]
        lines += [f"* `{slow['name']}`: {slow['ms']:.2f} ms in {slow['count']} calls" for slow in row["slowest"]]
    return "\n".join(lines) + "\n"


def _parser() -> ArgumentParser:
    parser = model_parser(__doc__, PREFIX, repeats=1)
    parser.add_argument("--method", default="duet", help="a name of `duet methods` (%(default)s)")
    parser.add_argument("--average", type=int, default=64, help="visual tokens per decoder layer (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=1, help="rows of a prompt (%(default)s)")
    parser.add_argument("--text", type=int, default=64, help="text tokens per row (%(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
