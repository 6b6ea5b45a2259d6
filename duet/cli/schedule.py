"""`duet schedule`: measure where a model needs its picture, and choose the shape of a budget by it."""

from __future__ import annotations

import re
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duet.budget import BACKBONES
from duet.budget.counts import MEASURES
from duet.cli.compression import switches_of
from duet.cli.model import load_model
from duet.cli.output import say, say_json, table
from duet.cli.sampled import add_sample_arguments, show_progress
from duet.cli.values import above_zero
from duet.errors import UserError
from duet.extras import need
from duet.files import check_output_file, check_output_folder
from duet.shipped import default_model

if TYPE_CHECKING:
    from duet.budget import Backbone
    from duet.schedule.choose import Trial
    from duet.schedule.run import Found

SUMMARY = "measure where a model needs its picture; choose the shape of a budget"
EXAMPLES = """examples:
  duet schedule --model llava-hf/llava-1.5-7b-hf --average 64 --samples samples.jsonl
  duet schedule --average 11.11 --samples playground/data/mini/schedule/samples.jsonl --name mini_ninth_found
  duet schedule --model Qwen/Qwen2.5-VL-7B-Instruct --average 320 --measure flops --samples samples.jsonl
  duet eval --method duet --budget outputs/schedule/mini_ninth_found.yaml --tasks pope --output outputs/found

A line of the file: {"image": "shop.png", "question": "What is on the sign?", "stratum": "text"}. 16 of each stratum are
enough: short answers, text in pictures, yes and no, captions. Answers are not needed. docs/schedule.md explains it.
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--average", type=above_zero, required=True, help="visual tokens per layer, on average")
    parser.add_argument(
        "--measure", choices=MEASURES, default=MEASURES[0],
        help="what the average counts: tokens that enter a layer (default), or operations: then rows may freeze",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, default=Path("outputs/schedule"), metavar="DIR", help="folder of results"
    )
    parser.add_argument("--name", help="of the budget and its files (default: by model, method and average)")
    add_sample_arguments(parser, "questions in strata", "duet", "a name from `duet methods`")


def run(args: Namespace) -> int:
    """Measure, choose, write and draw; returns the exit code.

    Raises:
        UserError: unusable samples, names or numbers.
    """
    need("duet schedule", "plot", "matplotlib")
    from duet.method_table import find_method
    from duet.schedule.samples import read_samples

    method = find_method(args.method)
    switches = switches_of(args)
    samples = read_samples(args.samples, args.limit)
    path = args.model or str(default_model())
    name = args.name or f"{Path(path).name}_{method.name}_{args.average:g}"
    if not re.fullmatch(r"[\w.+-]+", name):
        raise UserError(f"--name {name!r}: use letters, digits, dots, dashes and underscores")
    folder = check_output_folder(args.output)
    for ending in (".yaml", ".json", ".png", ".pdf"):
        check_output_file(folder / f"{name}{ending}")

    from duet.schedule.run import find_schedule, read_prompts

    model, processor = load_model(args, path)
    found = find_schedule(
        model,
        read_prompts(model, processor, samples),
        args.average,
        method=args.method,
        measure=args.measure,
        told=show_progress,
        tokenizer=processor.tokenizer,
        **switches,
    )
    facts = _write(args, found, path, name, folder, len(samples))
    say_json(facts) if args.json else say(_text(found, args, folder / f"{name}.yaml"))
    return 0


def _write(args: Namespace, found: Found, path: str, name: str, folder: Path, count: int) -> dict[str, Any]:
    from duet.schedule.draw import draw_curves
    from duet.schedule.files import curve_facts, row_of, write_budget, write_json
    from duet.schedule.samples import digest, read_samples

    about = f"{count} samples ({digest(read_samples(args.samples, args.limit))})"
    told = {"average": args.average, "measure": args.measure, "method": args.method, "samples": about}
    row = row_of(found.chosen, found.backbone, model=Path(path).name, **told)
    write_budget(folder / f"{name}.yaml", name, _backbone_name(found.backbone, path), row)
    facts = {
        "model": path,
        **told,
        "chosen": found.chosen.name,
        "considered": found.considered,
        "free_answers_equal": list(found.same),
        "left_out": found.dropped,
        **curve_facts(found.curves, found.trials, found.backbone),
        "prefills_per_sample": round(found.prefills, 2),
    }
    write_json(folder / f"{name}.json", facts)
    title = f"{Path(path).name}, {args.method}, average {args.average:g}, {about}"
    figure = draw_curves(facts, found.chosen.name, title)
    for ending in (".png", ".pdf"):
        figure.savefig(folder / f"{name}{ending}", dpi=160)
    return facts


def _backbone_name(backbone: Backbone, path: str) -> str:
    """The name of a known backbone with these sizes, else the checkpoint's path."""
    sizes = (backbone.decoder, backbone.tower)
    return next((name for name, known in BACKBONES.items() if (known.decoder, known.tower) == sizes), path)


def _text(found: Found, args: Namespace, file: Path) -> str:
    strata = found.curves.strata
    rows = [_row(trial, strata, found) for trial in found.trials]
    header = ["shape", "tokens per layer", "loss", "95 %", "against flat", *strata, "foretold", ""]
    lines = [table(header, rows), ""]
    lines += [f"{stratum} is left out: {why}" for stratum, why in found.dropped.items()]
    same, asked = found.same
    low, high = found.chosen.ends
    lines += [
        "loss: divergence from the full model, 0 to 1 (no picture); mean over strata, over whole answers",
        f"{found.considered} shapes considered; a sample cost {found.prefills:.1f} prefills of the full model",
        f"chosen: {found.chosen.name}, loss {found.chosen.mean:.3f} [{low:.3f}, {high:.3f}]; "
        f"{same} of {asked} free answers are the full model's",
        f"--budget {file}",
    ]
    return "\n".join(lines)


def _row(trial: Trial, strata: tuple[str, ...], found: Found) -> list[str]:
    low, high = trial.ends
    against = "" if trial.against_flat is None else "[{:+.3f}, {:+.3f}]".format(*trial.against_flat)
    mark = "chosen" if trial is found.chosen else f"refused ({trial.refused})" if trial.refused else ""
    return [
        trial.name,
        _layers(trial.budget.tokens_per_layer(found.backbone), trial.budget.frozen_for(found.curves.depth)),
        f"{trial.mean:.3f}",
        f"[{low:.3f}, {high:.3f}]",
        against if trial is not found.trials[0] else "",
        *(f"{trial.shares[stratum]:.3f}" for stratum in strata),
        "" if trial.foretold is None else f"{trial.foretold:.3f}",
        mark,
    ]


def _layers(counts: tuple[int, ...], frozen: tuple[int, ...]) -> str:
    """`45 x 2, 0 x 6`; frozen layers are marked with a star."""
    parts: list[list[Any]] = []
    for layer, count in enumerate(counts):
        shown = f"{count}{'*' if layer in frozen and count else ''}"
        if parts and parts[-1][0] == shown:
            parts[-1][1] += 1
        else:
            parts.append([shown, 1])
    return ", ".join(f"{shown} x {span}" for shown, span in parts)
