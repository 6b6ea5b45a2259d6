"""Measure prefill, decoding, memory and a training step of a model with every method at equal average tokens.

    python benchmarks/prefill.py                                                # narrow model, CPU, one thread
    python benchmarks/prefill.py --shape llava15-7b --device cuda --dtype bfloat16
    python benchmarks/prefill.py --shape qwen2_5_vl-cpu --parts prefill --clock process
    python benchmarks/prefill.py --shape qwen2_5_vl-tower --patches 16384 --parts memory --budgets 640
    python benchmarks/prefill.py --shape videollava-tower --frames 32 --parts memory --budgets 3840
    python benchmarks/prefill.py --methods none,duet --budgets 64 --repeats 3 --parts prefill

All configurations share one model and take turns: a round runs each of them once; warm-up rounds are discarded. The
baseline `none` is always measured. Writes a JSON file with all samples, and a Markdown table next to it.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

# A script's own folder is on the path, the root of the repository is not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.command import counts, model_parser, names, run, start
from benchmarks.configurations import configurations
from benchmarks.families import BEFORE, Asked, build_prompt
from benchmarks.optimizers import OPTIMIZERS, choose_optimizer, make_optimizer
from benchmarks.report import Operations, check_targets, memory_rows, render_markdown, summarize
from benchmarks.rounds import Rounds
from benchmarks.runs import TRAINED, choose_trained, prefill, run_prompt, run_training, train_step
from benchmarks.shapes import SHAPES
from duet.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.families import Prompt

PARTS = ("prefill", "training", "memory")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, print the table; returns the exit code."""
    return run(_parser(), measure, render_markdown, arguments=arguments)


def measure(options: Namespace) -> dict[str, Any]:
    """All numbers of one call, with the options and the machine.

    Raises:
        UserError: an option that is out of range, or that this machine does not support.
    """
    _check(options)
    model, facts = start(options)
    prompt = build_prompt(model, Asked(options.batch_size, options.patches, options.frames), options.text)
    runs = configurations(model, prompt, options.methods, options.budgets or SHAPES[options.shape].averages)
    rounds = Rounds(model, runs, options.warmup, options.repeats, options.clock)
    rows = _measure_prefill(rounds, prompt, options) if "prefill" in options.parts else []
    memory = _measure_memory(rounds, prompt) if "memory" in options.parts else []
    steps = _measure_training(rounds, prompt, options) if "training" in options.parts else []
    facts["options"]["optimizer"] = options.optimizer  # the one that was chosen
    return {
        **facts,
        "prefill": rows,
        "training": steps,
        "memory": memory,
        "targets": check_targets(rows) if rows else {},
        "load_average_after": [round(load, 2) for load in os.getloadavg()],
    }


def _measure_prefill(rounds: Rounds, prompt: Prompt, options: Namespace) -> list[dict[str, Any]]:
    model = rounds.model
    samples = rounds.samples(
        "prefill",
        lambda run, watch: run_prompt(model, prompt, options.decode, watch, compressed=run.wanted is not None),
    )
    peaks = rounds.peaks(lambda: prefill(model, prompt))
    whole, causal = (
        {run.name: run.prefill_flops(prompt.text, causal=masked) for run in rounds.runs} for masked in (False, True)
    )
    return summarize(rounds.runs, samples, peaks, Operations(whole, causal), "prefill_ms")


def _measure_training(rounds: Rounds, prompt: Prompt, options: Namespace) -> list[dict[str, Any]]:
    """Training steps; the second half of the text after the picture is the answer to learn."""
    model, answer = rounds.model, (options.text - BEFORE) // 2
    choose_trained(model, options.train)
    options.optimizer = choose_optimizer(model, options.optimizer)
    optimizer = make_optimizer(model, options.optimizer)
    samples = rounds.samples("training", lambda run, watch: run_training(model, prompt, answer, watch, optimizer))
    peaks = rounds.peaks(lambda: train_step(model, prompt, answer))
    whole, causal = (
        {
            run.name: run.training_flops(prompt.text, answer, frozen=options.train != "full", causal=masked)
            for run in rounds.runs
        }
        for masked in (False, True)
    )
    return summarize(rounds.runs, samples, peaks, Operations(whole, causal), "step_ms")


def _measure_memory(rounds: Rounds, prompt: Prompt) -> list[dict[str, Any]]:
    """Peak memory of the prefill, without its time."""
    return memory_rows(rounds.runs, rounds.peaks(lambda: prefill(rounds.model, prompt)))


def _check(options: Namespace) -> None:
    for name in ("repeats", "batch_size", "threads", "decode"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(options, name)}; it must be at least 1")
    unknown = set(options.parts) - set(PARTS)
    if unknown or not options.parts:
        raise UserError(f"--parts {','.join(options.parts)}: choose among {', '.join(PARTS)}")
    for name in ("warmup", "patches", "frames"):
        if getattr(options, name) < 0:
            raise UserError(f"--{name} is {getattr(options, name)}; it must be at least 0")


def _parser() -> ArgumentParser:
    parser = model_parser(__doc__, repeats=10)
    parser.add_argument(
        "--methods",
        type=names,
        default=names("none,visionzip,pyramiddrop,duet"),
        help="comma-separated names of `duet methods` (none,visionzip,pyramiddrop,duet)",
    )
    parser.add_argument(
        "--budgets",
        type=counts,
        default=[],
        help="average visual tokens per decoder layer, comma-separated (those of the shape; LLaVA-1.5: 192,128,64)",
    )
    parser.add_argument("--patches", type=int, default=0, help="patches of Qwen's picture, 4 per visual token (5120)")
    parser.add_argument("--frames", type=int, default=0, help="frames of Video-LLaVA's video (8)")
    parser.add_argument("--batch-size", type=int, default=1, help="rows of a prompt (%(default)s)")
    parser.add_argument("--text", type=int, default=64, help="text tokens per row (%(default)s)")
    parser.add_argument("--decode", type=int, default=8, help="tokens decoded after the first (%(default)s)")
    parser.add_argument(
        "--train",
        choices=TRAINED,
        default="full",
        help="what a training step trains besides the projector (%(default)s)",
    )
    parser.add_argument(
        "--optimizer",
        choices=OPTIMIZERS,
        default="auto",
        help="of a training step; auto: AdamW with 8-bit states, AdamW, or SGD, the first that is there and fits the "
        "card (%(default)s)",
    )
    parser.add_argument(
        "--parts",
        type=names,
        default=names("prefill,training"),
        help="what to measure, comma-separated: prefill, training, memory of the prefill alone (prefill,training)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
