"""Questions per second about one picture: the stock model in batches, a method alone, and with the picture read once.

    python benchmarks/questions.py                                     # narrow model, CPU, one thread
    python benchmarks/questions.py --shape llava15-7b --device cuda --dtype bfloat16 --batch-size 18

A picture has 18 questions (as in POPE) with answers of 3 tokens. In every round each configuration answers, in turn:
the stock model and the method alone one batch, which is the same work for every batch; with the picture read once, all
batches, the reading included. Ratios are those of a round; their median is reported. Writes JSON and Markdown.
"""

from __future__ import annotations

import json
import statistics
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

# A script's own folder is on the path, the root of the repository is not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.configurations import Configuration, configurations
from benchmarks.families import Asked, Prompt, build_model, build_prompt
from benchmarks.machine import describe_machine
from benchmarks.measure import CLOCKS, Stopwatch
from benchmarks.prefill import DTYPES, RESULTS
from benchmarks.shapes import SHAPES
from duet.engine.seen import PER_TOKEN, Gallery, in_view

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

#: Text tokens of each question, after the picture.
QUESTION = 30


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, print the table; returns the exit code."""
    options = _parser().parse_args(arguments)
    result = measure(options)
    output = options.output or RESULTS / f"questions-{options.shape}-{options.dtype}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    table = render(result)
    output.with_suffix(".md").write_text(table, encoding="utf-8")
    sys.stdout.write(table)
    return 0


def measure(options: Namespace) -> dict[str, Any]:
    """Seconds per question of every round, with the options and the machine."""
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    machine = describe_machine(device)
    model = build_model(SHAPES[options.shape], device, DTYPES[options.dtype])
    prompt = build_prompt(model, Asked(1, 0, 0), 64)
    runs = configurations(model, prompt, [options.method], options.budgets)
    batches = make_batches(prompt, options.questions, options.batch_size)
    found: dict[str, list[float]] = {}
    for number in range(options.warmup + options.repeats):
        for run in runs:
            for name, seconds in turn(model, run, batches, options).items():
                if number >= options.warmup:
                    found.setdefault(name, []).append(seconds)
    return {
        "options": {name: value for name, value in vars(options).items() if name != "output"},
        "machine": machine,
        "seconds_per_question": found,
        "rows": summarize(found, runs),
    }


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
def turn(model: Any, run: Configuration, batches: list[dict[str, Tensor]], options: Namespace) -> dict[str, float]:
    """Seconds per question of a configuration; of a method alone, and with the picture read once."""
    options_of = {"max_new_tokens": options.new_tokens, "min_new_tokens": options.new_tokens, "do_sample": False}
    with run.attached(model):
        watch = Stopwatch(model.device, options.clock)
        watch.run("alone", model.generate, **batches[0], **options_of)
        found = {run.name: watch.total_ms("alone") / 1e3 / len(batches[0]["input_ids"])}
        if run.wanted is None:
            return found
        watch.run("shared", _shared, model, batches, options_of)
    questions = sum(len(batch["input_ids"]) for batch in batches)
    return {**found, f"{run.name}, picture read once": watch.total_ms("shared") / 1e3 / questions}


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
            "against_stock": _ratio(stock, seconds),
            "against_the_method_alone": _ratio(alone, seconds) if shared else None,
        }
        rows.append(row)
    return rows


def _ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    return statistics.median(one / other for one, other in zip(slow, fast, strict=True))


def render(result: dict[str, Any]) -> str:
    """The table, with the machine."""
    options, machine = result["options"], result["machine"]
    lines = [
        f"# Questions per second: {options['shape']}, {options['dtype']}",
        "",
        f"{options['questions']} questions about one picture in batches of {options['batch_size']}, answers of "
        f"{options['new_tokens']} tokens; {options['repeats']} rounds, {options['clock']} clock, {options['threads']} "
        f"thread(s), {machine.get('gpu', machine['cpu'])}, load {machine['load_average']}, torch {machine['torch']}, "
        f"transformers {machine['transformers']}, commit {machine['commit'][:10]}.",
        "",
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
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="llava15-cpu", help="sizes of the model (%(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: ROCm too (%(default)s)")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="dtype of weights and pixels (%(default)s)")
    parser.add_argument("--method", default="duet", help="a name of `duet methods` (%(default)s)")
    parser.add_argument("--budgets", type=_counts, default=[192, 64], help="average visual tokens (192,64)")
    parser.add_argument("--questions", type=int, default=18, help="about the picture (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=6, help="questions at a time (%(default)s)")
    parser.add_argument("--new-tokens", type=int, default=3, help="of an answer (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="measured rounds (%(default)s)")
    parser.add_argument("--warmup", type=int, default=1, help="rounds before, discarded (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (%(default)s)")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="process: CPU time, on a busy machine")
    parser.add_argument("--output", type=Path, help="JSON file (benchmarks/results/questions-SHAPE-DTYPE.json)")
    return parser


def _counts(text: str) -> list[int]:
    return [int(count) for count in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
