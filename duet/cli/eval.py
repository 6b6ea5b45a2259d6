"""`duet eval`: answers benchmarks with one model, method and budget, and scores them."""

from __future__ import annotations

import logging
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from duet.cli.compression import add_switches, switches_of
from duet.cli.model import add_model_arguments
from duet.cli.output import say, say_json, table
from duet.cli.style import add_style, style_of
from duet.cli.values import positive, whole
from duet.errors import UserError
from duet.eval.benchmarks import BENCHMARKS
from duet.shipped import default_model

SUMMARY = "answer benchmarks and score them; an interrupted run continues"
EXAMPLES = """examples:
  duet eval --model llava-hf/llava-1.5-7b-hf --tasks pope,gqa --batch-size 16 --output outputs/full
  duet eval --model llava-hf/llava-1.5-7b-hf --method duet --budget llava15_128 --tasks pope,gqa --output outputs/duet
  duet eval --method visionzip --budget 22.2 --tasks pope --data playground/data/mini/eval --output outputs/mini
  duet eval --method pyramiddrop --budget '{layers: [2, 8], ratios: [0.5, 0.1]}' --tasks mme --output outputs/own
  duet eval --model llava-hf/llava-1.5-7b-hf --method duet --tasks mine.jsonl --output outputs/mine   # docs/own.md
  accelerate launch --num_processes 8 -m duet.cli.main eval --model ... --tasks seed --output outputs/seed

Each task gets a folder in --output: predictions.jsonl (one line per answer, as LLaVA writes them), rows.jsonl
(decisions), timing.jsonl, run.json (settings), metrics.json (score, counts, tokens, times, versions).

exit codes: 0 all questions answered, 3 some not (unreadable pictures are named), 2 unusable input
"""
COMPLETE, PARTIAL = 0, 3
#: Marks a value that was measured on a part of the questions.
SUBSET = "*"
TASKS = ", ".join(BENCHMARKS)
LOADING = ("device", "dtype", "attn_implementation", "revision", "model_base")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--method", help="a name from `duet methods` (default: what the checkpoint was trained with, else none)"
    )
    parser.add_argument(
        "--budget",
        metavar="BUDGET",
        help="a name from `duet budget list`, an average of tokens, or numbers: '{dominant: 170, contextual: 35}'",
    )
    parser.add_argument(
        "--tasks", required=True, metavar="A,B", help=f"of {TASKS}; or question files of your own: mine.jsonl"
    )
    parser.add_argument("--data", default="./playground/data/eval", metavar="DIR", help="root of the benchmarks")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the results")
    parser.add_argument(
        "--no-sharing", action="store_true", help="read a picture again for every question about it (same answers)"
    )
    parser.add_argument("--batch-size", type=positive, default=1, metavar="N", help="questions at a time (default: 1)")
    parser.add_argument(
        "--limit", type=positive, metavar="N", help="at most N questions of each task, drawn evenly over its categories"
    )
    parser.add_argument("--seed", type=whole, metavar="S", help="another seed draws others for --limit (default: 0)")
    parser.add_argument("--max-new-tokens", type=positive, metavar="N", help="default: as in the original evaluation")
    add_style(parser)
    parser.add_argument(
        "--tokenization",
        choices=("right", "original"),
        default="right",
        help="original: the token ids of the code that published numbers were made with (docs/data.md)",
    )
    parser.add_argument("--overwrite", action="store_true", help="delete existing results in --output")
    parser.add_argument("--json", action="store_true", help="print all metrics as JSON")
    add_model_arguments(parser).add_argument("--revision", help="branch, tag or commit on the hub")
    add_switches(parser)


def run(args: Namespace) -> int:
    """Evaluate and print one line per task; returns the exit code.

    Raises:
        UserError: unusable names, files or numbers, or results of other settings in the output folder.
    """
    from duet.eval.benchmarks import get
    from duet.eval.running.sweep import Evaluation, evaluate, find_processes
    from duet.method_table import find_method

    tasks = list(dict.fromkeys(get(task.strip()).name for task in args.tasks.split(",")))
    path = args.model or str(default_model())
    method, budget, switches = chosen(args, path)
    find_method(method)
    if args.seed is not None and args.limit is None:
        raise UserError("--seed has no effect without --limit: all questions are asked")
    quiet()
    wanted = Evaluation(
        model=path,
        tasks=tasks,
        data=args.data,
        output=args.output,
        method=method,
        budget=budget,
        switches=switches,
        batch_size=args.batch_size,
        limit=args.limit,
        seed=args.seed or 0,
        max_new_tokens=args.max_new_tokens,
        style=style_of(args),
        tokenization=args.tokenization,
        loading={name: getattr(args, name) for name in LOADING if getattr(args, name) is not None},
        share=not args.no_sharing,
    )
    results = evaluate(wanted, overwrite=args.overwrite)
    if find_processes(wanted.loading).is_main_process:
        if args.json:
            say_json(results)
        else:
            say(as_text(results, Path(args.output)))
    return PARTIAL if any(found["counts"]["missing"] for found in results) else COMPLETE


def chosen(args: Namespace, path: str) -> tuple[str, Any, dict[str, Any]]:
    """Method, budget and switches: the given ones, else those that the checkpoint was trained with, said in one line.

    Raises:
        CheckpointError: its duet_config.json is damaged.
    """
    from dataclasses import asdict

    from duet.checkpoints.setting import find_setting
    from duet.config import parse_value
    from duet.registry import described

    budget = None if args.budget is None else parse_value(args.budget, "--budget")
    trained = find_setting(path) if args.method is None else None
    args.method = args.method or ("none" if trained is None else trained.method)
    switches = switches_of(args)
    if trained is None:
        return args.method, budget, switches
    about = described(trained.budget) if budget is None else "with the budget given"
    sys.stderr.write(f"{path}: {trained.method} as it was trained (duet_config.json), {about}\n")
    companion = {} if trained.companion is None else {"companion": trained.companion}
    numbers = asdict(trained.budget) if budget is None else budget
    return trained.method, numbers, {**companion, **trained.switches, **switches}


def quiet() -> None:
    """Show our own progress lines, but not the libraries'."""
    from transformers.utils import logging as transformers_logging

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("duet").setLevel(logging.INFO)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def as_text(results: list[dict[str, Any]], output: Path) -> str:
    """One row per task, then the questions that could not be asked."""
    header = ("task", "metric", "value", "questions", "tokens", "prefill ms", "decode ms")
    rows = []
    for found in results:
        counts, times = found["counts"], found["timing"]
        asked = f"{counts['scored']}" if not counts["missing"] else f"{counts['scored']} of {counts['asked']}"
        part = found["subset"]
        asked += f", a subset of {part['of']}" if part else ""
        numbers = (found["tokens"]["average"], times["prefill_ms"], times["decode_ms"])
        shown = ["-" if number is None else f"{number:.1f}" for number in numbers]
        value = f"{found['headline']['value']:.2f}{SUBSET * bool(part)}"
        rows.append((found["task"], found["headline"]["name"], value, asked, *shown))
    lines = [table(header, rows)]
    seeds = {found["subset"]["seed"] for found in results if found["subset"]}
    if seeds:
        seed = ", ".join(map(str, sorted(seeds)))
        lines.append(f"{SUBSET} of a subset of the questions, drawn evenly over categories with seed {seed}")
    lines.append(f"results: {output}")
    lines += [f"failed: {reason}" for found in results for reason in found["failures"].values()]
    return "\n".join(lines)
