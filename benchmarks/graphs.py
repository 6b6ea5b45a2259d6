"""The first token with compiled code on both sides; on a GPU, with captured CUDA graphs.

    python benchmarks/graphs.py                                                # narrow model, CPU, one thread
    python benchmarks/graphs.py --shape llava15-7b --device cuda --dtype bfloat16

From pixels to the logits of the first answer token, for the stock model and a method, in up to three ways: `eager`;
`compiled`, by `duet.compile` (for the stock model with method `none`, so with all tokens); and, stock model only,
`torch`, by `torch.compile(model)`, which breaks at what the stock forward reads back. The speed-up of a way is against
the fastest way of the stock model that is compiled if it is, and against the stock model's `eager` otherwise. Compiling
is timed apart: it is paid once per length. Times are medians over the rounds. Writes JSON and Markdown.
"""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

# A script's own folder is on the path, the root of the repository is not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import duet
from benchmarks.command import method_options, model_parser, names, run, start
from benchmarks.configurations import configurations
from benchmarks.families import Asked, build_prompt
from benchmarks.measure import Stopwatch
from benchmarks.report import heading
from benchmarks.runs import prefill
from duet.engine.attachment import is_attached
from duet.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.configurations import Configuration

PREFIX = "graphs-"
WAYS = ("eager", "torch", "compiled")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, print the table; returns the exit code."""
    return run(_parser(), measure, as_markdown, PREFIX, arguments)


@torch.no_grad()
def measure(options: Namespace) -> dict[str, Any]:
    """One row per configuration and way.

    Raises:
        UserError: an option that is out of range, or that this machine does not support.
    """
    unknown = set(options.ways) - set(WAYS)
    if unknown or not options.ways:
        raise UserError(f"--ways {','.join(options.ways)}: choose among {', '.join(WAYS)}")
    if options.repeats < 1 or options.batch_size < 1:
        raise UserError("--repeats and --batch-size are at least 1")
    model, facts = start(options)
    prompt = build_prompt(model, Asked(options.batch_size, 0, 0), options.text)
    rows = []
    for one in configurations(model, prompt, ["none", options.method], options.budgets):
        for way, call in _ways(model, one, options):
            rows.append(
                {"name": one.name, "way": way, **_timed(lambda call=call: prefill(call, prompt), options, model)}
            )
    return {**facts, "rows": _against_stock(rows)}


def _ways(model: Any, one: Configuration, options: Namespace) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The ways of one configuration, and what to call."""
    stock = one.wanted is None
    chosen = {} if options.backend == "inductor" else {"backend": options.backend}
    with one.attached(model):
        if "eager" in options.ways:
            yield "eager", model
        if "torch" in options.ways and stock:
            mode = {} if chosen or options.device == "cpu" else {"mode": "reduce-overhead"}
            yield "torch", torch.compile(model, dynamic=False, **mode, **chosen)
            torch.compiler.reset()
        if "compiled" in options.ways:
            if stock:
                duet.attach(model, "none")
            yield "compiled", duet.compile(model, **chosen)
            torch.compiler.reset()
            if stock and is_attached(model):
                duet.detach(model)


def _timed(call: Callable[[], Any], options: Namespace, model: Any) -> dict[str, Any]:
    begun = time.perf_counter()
    for _ in range(2):  # compiles; captures
        _marked(call)
    model.device.type == "cuda" and torch.cuda.synchronize()
    first, samples = time.perf_counter() - begun, []
    for _ in range(options.warmup + options.repeats):
        watch = Stopwatch(model.device, options.clock)
        watch.run("prefill", _marked, call)
        samples.append(watch.total_ms("prefill"))
    samples = samples[options.warmup :]
    return {"ms": median(samples), "first_s": first, "samples_ms": samples}


def _marked(call: Callable[[], Any]) -> None:
    torch.compiler.cudagraph_mark_step_begin()  # what the last call returned is no longer needed
    call()


def _against_stock(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    stock = [row for row in rows if row["name"] == rows[0]["name"]]
    compiled = [row["ms"] for row in stock if row["way"] != "eager"]
    best = {"eager": next((row["ms"] for row in stock if row["way"] == "eager"), None)}
    best |= dict.fromkeys(WAYS[1:], min(compiled) if compiled else None)
    found = ((row, best[row["way"]]) for row in rows)
    return [{**row, "speed_up": None if base is None else base / row["ms"]} for row, base in found]


def as_markdown(result: dict[str, Any]) -> str:
    """The rows as a table."""
    options = result["options"]
    lines = [
        *heading(result, f"First token with compiled code, {options['shape']}", f"{options['text']} text tokens"),
        "| configuration | way | ms | against the stock model | first two calls, s |",
        "|---|---|---:|---:|---:|",
    ]
    for row in result["rows"]:
        speed_up = "" if row["speed_up"] is None else f"{row['speed_up']:.2f}x"
        lines.append(f"| {row['name']} | {row['way']} | {row['ms']:.2f} | {speed_up} | {row['first_s']:.1f} |")
    return "\n".join(lines) + "\n"


def _parser() -> ArgumentParser:
    parser = method_options(model_parser(__doc__, PREFIX, repeats=5), budgets=[64])
    parser.add_argument("--ways", type=names, default=list(WAYS), help=f"({','.join(WAYS)})")
    parser.add_argument("--batch-size", type=int, default=1, help="rows of a prompt (%(default)s)")
    parser.add_argument("--backend", default="inductor", help="of torch.compile (%(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
