"""Milliseconds per decoded token: a growing cache, a cache of fixed size, and its compiled step.

    python benchmarks/decoding.py                                              # narrow model, CPU, one thread
    python benchmarks/decoding.py --shape llava15-7b --device cuda --dtype bfloat16 --batch-size 1

`generate` answers a prompt in three ways: as it does by default, with `cache_implementation="static"`, and compiled (on
a GPU a captured graph). The ways of one configuration take turns; a time is the median over the tokens of all rounds,
the first one of a round left out. Compiling is timed apart: it is paid once per bucket. `--ways growing,fixed` leaves
it out. Writes JSON and Markdown.
"""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from transformers import CompileConfig

# A script's own folder is on the path, the root of the repository is not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.command import method_options, model_parser, names, run, start
from benchmarks.configurations import configurations
from benchmarks.families import Asked, build_prompt
from benchmarks.measure import CLOCKS
from benchmarks.report import heading
from duet.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PREFIX = "decoding-"
WAYS = ("growing", "fixed", "compiled")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, print the table; returns the exit code."""
    return run(_parser(), measure, as_markdown, PREFIX, arguments)


class _Times:
    """A streamer that notes when each token is there."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now, self.at = now, list[float]()

    def put(self, tokens: torch.Tensor) -> None:
        """The prompt, then each token; they are on the host."""
        self.at.append(self.now())

    def end(self) -> None:
        """The answer is complete."""

    @property
    def steps(self) -> list[float]:
        """Milliseconds between the tokens after the first two."""
        return [1e3 * (after - before) for before, after in zip(self.at[2:-1], self.at[3:], strict=True)]


def measure(options: Namespace) -> dict[str, Any]:
    """One row per configuration and way.

    Raises:
        UserError: an option that is out of range, or that this machine does not support.
    """
    unknown = set(options.ways) - set(WAYS)
    if unknown or not options.ways:
        raise UserError(f"--ways {','.join(options.ways)}: choose among {', '.join(WAYS)}")
    if options.new_tokens < 4 or options.repeats < 1 or options.batch_size < 1:
        raise UserError("--new-tokens is at least 4, --repeats and --batch-size at least 1")
    model, facts = start(options)
    prompt = build_prompt(model, Asked(options.batch_size, 0, 0), options.text)
    rows = []
    for one in configurations(model, prompt, ["none", options.method], options.budgets):
        with one.attached(model):
            rows += _configuration(model, prompt, one.name, options)
    return {**facts, "rows": rows}


def _configuration(model: Any, prompt: Any, name: str, options: Namespace) -> list[dict[str, Any]]:
    """All ways of one configuration, in turn."""
    first = {way: _answer(model, prompt, way, options)[1] for way in options.ways}  # compiles, warms up
    steps: dict[str, list[float]] = {way: [] for way in options.ways}
    for _ in range(options.repeats):
        for way in options.ways:
            steps[way] += _answer(model, prompt, way, options)[0]
    base = median(steps[options.ways[0]])
    return [
        {
            "name": name,
            "way": way,
            "ms_per_token": median(steps[way]),
            "speed_up": base / median(steps[way]),
            "first_answer_s": first[way],
            "samples_ms": steps[way],
        }
        for way in options.ways
    ]


def _answer(model: Any, prompt: Any, way: str, options: Namespace) -> tuple[list[float], float]:
    """Milliseconds per token of an answer, and seconds of all of it."""
    asked: dict[str, Any] = {"max_new_tokens": options.new_tokens, "min_new_tokens": options.new_tokens}
    if way != "growing":
        asked |= {"cache_implementation": "static", "disable_compile": way == "fixed"}
    if way == "compiled":
        asked["compile_config"] = CompileConfig(mode="reduce-overhead" if options.device == "cuda" else "default")
        asked["compile_config"]._compile_all_devices = True
    times = _Times(CLOCKS[options.clock])
    if options.batch_size == 1:
        asked["streamer"] = times
    else:  # stock streams one row only
        asked["stopping_criteria"] = [_Noting(times)]
    begun = time.perf_counter()
    model.generate(**prompt.inputs, do_sample=False, **asked)
    return times.steps, time.perf_counter() - begun


class _Noting:
    """A stopping criterion that never stops, and notes when each token is there."""

    def __init__(self, times: _Times) -> None:
        self.times = times

    def __call__(self, ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        """`[B]` bool, False."""
        if not self.times.at:
            self.times.put(ids)
        if ids.device.type == "cuda":
            torch.cuda.synchronize()
        self.times.put(ids)
        return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)


def as_markdown(result: dict[str, Any]) -> str:
    """The rows as a table."""
    options = result["options"]
    lines = [
        *heading(result, f"Decoding, {options['shape']}", f"answers of {options['new_tokens']} tokens"),
        "| configuration | cache | ms per token | against growing | first answer, s |",
        "|---|---|---:|---:|---:|",
    ]
    lines += [
        f"| {row['name']} | {row['way']} | {row['ms_per_token']:.2f} | {row['speed_up']:.2f}x "
        f"| {row['first_answer_s']:.1f} |"
        for row in result["rows"]
    ]
    return "\n".join(lines) + "\n"


def _parser() -> ArgumentParser:
    parser = method_options(model_parser(__doc__, PREFIX), budgets=[64])
    parser.add_argument("--ways", type=names, default=list(WAYS), help=f"({','.join(WAYS)})")
    parser.add_argument("--batch-size", type=int, default=1, help="rows of a prompt (%(default)s)")
    parser.add_argument("--new-tokens", type=int, default=24, help="of an answer (%(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
