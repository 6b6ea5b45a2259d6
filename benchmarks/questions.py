"""Questions per second about one picture: the stock model in batches, a method alone, and with the picture read once.

    python benchmarks/questions.py                                     # narrow model, CPU, one thread
    python benchmarks/questions.py --shape llava15-7b --device cuda --dtype bfloat16 --batch-size 18

A picture has 18 questions (as in POPE) with answers of 3 tokens. In every round each configuration answers, in turn:
the stock model and the method alone one batch, which is the same work for every batch; with the picture read once, all
batches, the reading included. Ratios are those of a round; their median is reported. Writes JSON and Markdown.
"""

from __future__ import annotations

import statistics
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

# A script's own folder is on the path, the root of the repository is not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.command import method_options, model_parser, run, start
from benchmarks.configurations import Configuration, configurations
from benchmarks.families import Asked, Prompt, build_prompt
from benchmarks.measure import Stopwatch
from benchmarks.report import heading, ratio
from duet.engine.seen import PER_TOKEN, Gallery, in_view

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

#: Text tokens of each question, after the picture.
QUESTION = 30
PREFIX = "questions-"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, print the table; returns the exit code."""
    return run(_parser(), measure, render, PREFIX, arguments)


def measure(options: Namespace) -> dict[str, Any]:
    """Seconds per question of every round, with the options and the machine.

    Raises:
        UserError: a device or a clock that this machine does not support.
    """
    model, facts = start(options)
    prompt = build_prompt(model, Asked(1, 0, 0), 64)
    runs = configurations(model, prompt, [options.method], options.budgets)
    batches = make_batches(prompt, options.questions, options.batch_size)
    found: dict[str, list[float]] = {}
    for number in range(options.warmup + options.repeats):
        for one in runs:
            for name, seconds in turn(model, one, batches, options).items():
                if number >= options.warmup:
                    found.setdefault(name, []).append(seconds)
    return {**facts, "seconds_per_question": found, "rows": summarize(found, runs)}


def make_batches(prompt: Prompt, questions: int, size: int) -> list[dict[str, Tensor]]:
    """Batches of prompts about one picture, with different questions of equal length."""
    generator = torch.Generator().manual_seed(1)
    ids = prompt.inputs["input_ids"].repeat(questions, 1)
    words = torch.randint(3, 100, (questions, QUESTION), generator=generator)
    ids[:, -QUESTION:] = words.to(ids.device)
    media = {name: value for name, value in prompt.inputs.items() if name not in PER_TOKEN}
    batches = []
    for part in ids.split(size):
        repeated = {name: torch.cat([value] * len(part)) for name, value in media.items()}
        types = prompt.inputs.get("mm_token_type_ids")
        extra = {} if types is None else {"mm_token_type_ids": types.repeat(len(part), 1)}
        batches.append({"input_ids": part, "attention_mask": torch.ones_like(part), **extra, **repeated})
    return batches


@torch.inference_mode()
def turn(
    model: Any, configuration: Configuration, batches: list[dict[str, Tensor]], options: Namespace
) -> dict[str, float]:
    """Seconds per question of a configuration; of a method alone, and with the picture read once."""
    options_of = {"max_new_tokens": options.new_tokens, "min_new_tokens": options.new_tokens, "do_sample": False}
    with configuration.attached(model):
        watch = Stopwatch(model.device, options.clock)
        watch.run("alone", model.generate, **batches[0], **options_of)
        found = {configuration.name: watch.total_ms("alone") / 1e3 / len(batches[0]["input_ids"])}
        if configuration.wanted is None:
            return found
        watch.run("shared", _shared, model, batches, options_of)
    questions = sum(len(batch["input_ids"]) for batch in batches)
    return {**found, f"{configuration.name}, picture read once": watch.total_ms("shared") / 1e3 / questions}


def _shared(model: Any, batches: list[dict[str, Tensor]], options: dict[str, Any]) -> None:
    gallery = Gallery()
    for batch in batches:
        words = {name: batch[name] for name in PER_TOKEN if name in batch}
        rows = len(words["input_ids"])
        first = {name: value[: len(value) // rows] for name, value in batch.items()}
        picture = gallery.look(model, [("picture", first)])[0]
        with in_view(model, [picture] * rows):
            model.generate(**picture.stand_in(words, rows), **options)


def summarize(found: dict[str, list[float]], runs: Sequence[Configuration]) -> list[dict[str, Any]]:
    """Medians over the rounds, and of the ratios within a round."""
    stock = found[runs[0].name]
    alone: list[float] = stock
    rows = []
    for name, seconds in found.items():
        shared = name.endswith("read once")
        alone = alone if shared else seconds
        row = {
            "configuration": name,
            "questions_per_second": 1 / statistics.median(seconds),
            "against_stock": ratio(stock, seconds),
            "against_the_method_alone": ratio(alone, seconds) if shared else None,
        }
        rows.append(row)
    return rows


def render(result: dict[str, Any]) -> str:
    """The table, with the machine."""
    options = result["options"]
    asked = f"{options['questions']} questions about one picture, answers of {options['new_tokens']} tokens"
    lines = [
        *heading(result, f"Questions per second, {options['shape']}", asked),
        "| configuration | questions per second | against stock | against the method alone |",
        "| --- | ---: | ---: | ---: |",
    ]
    for row in result["rows"]:
        own = row["against_the_method_alone"]
        lines.append(
            f"| {row['configuration']} | {row['questions_per_second']:.3f} | {row['against_stock']:.2f}x | "
            f"{'' if own is None else f'{own:.2f}x'} |"
        )
    return "\n".join(lines) + "\n"


def _parser() -> ArgumentParser:
    parser = method_options(model_parser(__doc__, PREFIX), budgets=[192, 64], text=False)
    parser.add_argument("--questions", type=int, default=18, help="about the picture (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=6, help="questions at a time (%(default)s)")
    parser.add_argument("--new-tokens", type=int, default=3, help="of an answer (%(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
