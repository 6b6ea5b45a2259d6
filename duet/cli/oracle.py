"""`duet oracle`: leave visual tokens out in turn, and see how far rules are from the best choice."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from duet.cli.output import say
from duet.cli.values import amount, method_names, positive
from duet.errors import UserError

if TYPE_CHECKING:
    from duet.analysis.oracle import Place
    from duet.eval.asking.answerer import Answerer
    from duet.eval.asking.batches import EncodedPrompt

SUMMARY = "which visual tokens matter at a layer, and how far rules are from the best choice"
EXAMPLES = """examples:
  duet oracle --tasks pope,gqa --data playground/data/mini/eval --limit 20
  duet oracle --tasks gqa --data playground/data/mini/eval --stage1 none --layer 2 --shares 0.25,0.1
  duet oracle --model llava-hf/llava-1.5-7b-hf --tasks gqa,textvqa --data ./playground/data/eval --limit 16 \\
              --dominant 102 --layer 16 --group 2

No labels are needed. A prompt takes about seven forwards for each token that enters, in batches.
"""
RULES = "duet_prune,pyramiddrop,duet_prune[text_guidance=attention],fastv,tops,dart,random_rank,inverted"


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    asked = parser.add_argument_group("prompts")
    asked.add_argument("--tasks", required=True, metavar="A,B", help="benchmarks whose questions are asked")
    asked.add_argument("--data", required=True, metavar="DIR", help="root of their files")
    asked.add_argument("--limit", type=positive, default=20, help="questions of each task (default: 20)")
    asked.add_argument("--seed", type=int, default=0, help="which questions are drawn (default: 0)")
    asked.add_argument("--max-new-tokens", type=positive, default=32, help="longest answer (32)")
    place = parser.add_argument_group("place")
    place.add_argument("--stage1", default="cover", metavar="NAME", help="default: cover; none: all tokens")
    entering = "tokens of a picture that enter the language model (default: 0.36 of all)"
    place.add_argument("--dominant", type=amount, metavar="N", help=entering)
    place.add_argument(
        "--layer", type=positive, metavar="L", help="drop after this many layers (default: half of them)"
    )
    shares = "shares of the tokens that enter to be left (default: 0.5,0.25)"
    place.add_argument("--shares", default="0.5,0.25", metavar="A,B", help=shares)
    place.add_argument(
        "--attention", choices=("plain", "proportional"), default="plain", help="proportional: merged tokens count more"
    )
    place.add_argument("--rules", default=RULES, metavar="A,B", help=f"stages 2 (default: {RULES})")
    place.add_argument("--group", type=positive, default=1, help="neighbouring tokens tried together (default: 1)")
    parser.add_argument("--model", metavar="MODEL", help="folder or hub id (default: the small model)")
    parser.add_argument("--batch-size", type=positive, default=32, help="choices per forward (default: 32)")
    parser.add_argument("--device", metavar="DEVICE", help="default: the accelerator, if there is one")
    parser.add_argument("--dtype", metavar="DTYPE", help="default: the checkpoint's, float32 on a CPU")
    parser.add_argument("--format", default="markdown", metavar="FORMAT", help="markdown, latex, csv or json")


def run(args: Namespace) -> int:
    """Measure and print; returns the exit code.

    Raises:
        UserError: unknown names, unusable numbers or files.
    """
    from duet.analysis.oracle import ask, measure_oracle, measure_rule
    from duet.analysis.oracle_table import oracle_table
    from duet.cli.eval import quiet
    from duet.eval.asking.answerer import Answerer
    from duet.eval.running.preflight import folder_sizes
    from duet.method_table import find_method
    from duet.report.render import FORMATS, render
    from duet.shipped import default_model

    if args.format not in FORMATS:
        raise UserError(f"unknown format {args.format!r}; choose {', '.join(FORMATS)}")
    rules = [name for name in method_names(args.rules) if name]
    for name in [f"stage2:{rule}" for rule in rules] + ([] if args.stage1 == "none" else [f"stage1:{args.stage1}"]):
        find_method(name)
    source = args.model or str(default_model())
    folder_sizes(source)
    quiet()
    answerer = Answerer.load(source, device=args.device, dtype=args.dtype)
    place = _place(args, answerer)
    prompts = _prompts(args, answerer)
    asked = ask(answerer, prompts, args.max_new_tokens)
    measure_oracle(answerer, place, asked, args.group, args.batch_size)
    for rule in rules:
        measure_rule(answerer, place, rule, asked)
    say(render(oracle_table(place, asked, len(asked[0].drop), args.group), args.format).rstrip("\n"))
    return 0


def _place(args: Namespace, answerer: Answerer) -> Place:
    from duet.analysis.oracle import Place

    depth = answerer.backbone.decoder.layers
    layer = args.layer or depth // 2
    try:
        shares = tuple(sorted((float(part) for part in args.shares.split(",")), reverse=True))
    except ValueError:
        raise UserError(f"--shares {args.shares!r}: give numbers, as in 0.5,0.25") from None
    if any(not 0 < share < 1 for share in shares):
        raise UserError(f"--shares {args.shares}: give shares between 0 and 1")
    if args.stage1 == "none" and args.dominant is not None:
        raise UserError("--dominant does nothing with --stage1 none")
    entering = 0.36 if args.dominant is None else args.dominant
    place = Place(args.stage1, None if args.stage1 == "none" else entering, layer, shares, args.attention)
    budget = place.budget(shares[-1])
    budget.layers_for(depth)
    if answerer.backbone.patches is not None:
        budget.tokens_per_layer(answerer.backbone)
    return place


def _prompts(args: Namespace, answerer: Answerer) -> list[EncodedPrompt]:
    from duet.eval.asking.task import read_task
    from duet.eval.benchmarks import get

    found = []
    for name in dict.fromkeys(get(task.strip()).name for task in args.tasks.split(",")):
        task = read_task(answerer, name, Path(args.data), 1, args.limit, None, args.seed)
        for prompt, sample in zip(task.prompts, task.samples, strict=True):
            if sample.images or sample.video:
                found.append(answerer.encode(prompt, sample.images, sample.video))
    if not found:
        raise UserError(f"none of {args.tasks} asks about a picture")
    return found
