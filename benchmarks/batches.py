"""Throughput by batch size, and how many requests fit into memory: the stock model and methods at several averages.

    python benchmarks/batches.py --sizes 1,4,16                                # narrow model, CPU, one thread
    python benchmarks/batches.py --shape llava15-7b --device cuda --dtype bfloat16 --sizes 1,4,16,64

A request is a picture, its question and a short answer. For every batch size each configuration answers one batch per
round, in turn. `requests_per_gib` is what the cache of a finished prefill allows; on a GPU, a size that does not fit is
recorded as such for each configuration. `room.py` computes how many fit on a card. Writes JSON and Markdown.
"""

from __future__ import annotations

import gc
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

# A script's own folder is on the path, the root of the repository is not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.command import counts, method_options, model_parser, run, start
from benchmarks.configurations import configurations
from benchmarks.families import Asked, build_prompt
from benchmarks.measure import Stopwatch
from benchmarks.report import heading, ratio
from benchmarks.rounds import Rounds
from benchmarks.runs import run_prompt
from duet.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.configurations import Configuration

GIB = 1 << 30
PREFIX = "batches-"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, print the table; returns the exit code."""
    return run(_parser(), measure, as_markdown, PREFIX, arguments)


def measure(options: Namespace) -> dict[str, Any]:
    """Rows by batch size and configuration.

    Raises:
        UserError: an option that is out of range, or that this machine does not support.
    """
    if min(options.sizes) < 1 or options.repeats < 1 or options.new_tokens < 2:
        raise UserError("--sizes and --repeats are at least 1, --new-tokens at least 2")
    model, facts = start(options)
    rows = []
    for size in options.sizes:
        rows += _size(model, size, options)
    return {**facts, "rows": rows}


def _size(model: Any, size: int, options: Namespace) -> list[dict[str, Any]]:
    """All configurations that fit take turns; the others are recorded as such."""
    prompt = build_prompt(model, Asked(size, 0, 0), options.text)
    runs = configurations(model, prompt, ["none", options.method], options.budgets)

    def answer(turn: Configuration, watch: Stopwatch) -> dict[str, float]:
        return run_prompt(model, prompt, options.new_tokens - 1, watch, compressed=turn.wanted is not None)

    fitting = [one for one in runs if _fits(model, one, answer, options.clock)]
    samples = Rounds(model, fitting, options.warmup, options.repeats, options.clock).samples(f"batch {size}", answer)
    times = {name: [_seconds(sample, options.new_tokens) for sample in found] for name, found in samples.items()}
    stock = times.get(runs[0].name)
    rows = []
    for one in runs:
        row: dict[str, Any] = {"batch_size": size, "name": one.name, "fits": one.name in times}
        if row["fits"]:
            cache, own = samples[one.name][0]["kv_bytes"] / size, times[one.name]
            row |= {
                "requests_per_s": size / median(own),
                "speed_up": None if stock is None else ratio(stock, own),
                "cache_mib": cache / (1 << 20),
                "requests_per_gib": GIB / cache,
            }
        rows.append(row)
    return rows


def _fits(model: Any, one: Configuration, answer: Callable[..., Any], clock: str) -> bool:
    """Whether the device has the memory for a batch."""
    if model.device.type != "cuda":
        return True
    try:
        with one.attached(model):
            answer(one, Stopwatch(model.device, clock))
    except torch.OutOfMemoryError:
        return False
    finally:
        gc.collect()
        torch.cuda.empty_cache()
    return True


def _seconds(sample: dict[str, float], tokens: int) -> float:
    return (sample["prefill_ms"] + sample["decode_ms"] * (tokens - 1)) / 1e3


def as_markdown(result: dict[str, Any]) -> str:
    """The rows as a table."""
    options = result["options"]
    asked = f"answers of {options['new_tokens']} tokens, {options['text']} text tokens"
    lines = [
        *heading(result, f"Batches, {options['shape']}", asked),
        "| batch | configuration | requests/s | against stock | cache per request, MiB | requests per GiB of cache |",
        "|---:|---|---:|---:|---:|---:|",
    ]
    for row in result["rows"]:
        if not row["fits"]:
            lines.append(f"| {row['batch_size']} | {row['name']} | does not fit | | | |")
            continue
        speed_up = "" if row["speed_up"] is None else f"{row['speed_up']:.2f}x"
        lines.append(
            f"| {row['batch_size']} | {row['name']} | {row['requests_per_s']:.2f} | {speed_up} "
            f"| {row['cache_mib']:.1f} | {row['requests_per_gib']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def _parser() -> ArgumentParser:
    parser = method_options(model_parser(__doc__, PREFIX), budgets=[192, 128, 64])
    parser.add_argument("--sizes", type=counts, default=[1, 4, 16], help="batch sizes (1,4,16)")
    parser.add_argument("--new-tokens", type=int, default=16, help="of an answer (%(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
