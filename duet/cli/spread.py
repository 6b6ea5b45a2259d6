"""`duet budget spread`: a budget per picture whose mean over samples is a given average."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import fields
from statistics import fmean
from typing import TYPE_CHECKING, Any

from duet.budget import Budget
from duet.cli.compression import switches_of
from duet.cli.model import load_model
from duet.cli.output import say, say_json
from duet.cli.sampled import add_sample_arguments, show_progress
from duet.cli.values import above_zero
from duet.schedule import MOST
from duet.shipped import default_model

if TYPE_CHECKING:
    from duet.schedule.spread import Spread


def add_spread_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = (
        "Simple pictures take fewer tokens, crowded ones more. Finds the value of the switch `enough` at which the "
        "pictures of the samples have the average; their questions are not asked."
    )
    parser.add_argument(
        "--average", type=above_zero, required=True, help="visual tokens per layer, mean over the pictures"
    )
    parser.add_argument("--shape", help="as of duet budget solve (default: the method's own)")
    parser.add_argument(
        "--most", type=above_zero, default=MOST, metavar="X", help=f"tokens of a picture, in means (default: {MOST})"
    )
    add_sample_arguments(parser, "as of duet schedule", "duet_cover", "one that has the switch")


def spread(args: Namespace) -> int:
    """Print the switch and the budget; returns the exit code.

    Raises:
        UserError: unusable samples, a method without the switch, or an average that the samples cannot have.
    """
    from duet.schedule.samples import read_samples

    switches, samples = switches_of(args), read_samples(args.samples, args.limit)

    from duet.schedule.run import read_prompts
    from duet.schedule.spread import check_method, find_enough

    check_method(args.method, switches, args.most)
    model, processor = load_model(args, args.model or str(default_model()))
    found = find_enough(
        model,
        read_prompts(model, processor, samples),
        args.average,
        method=args.method,
        shape=args.shape,
        most=args.most,
        told=show_progress,
        tokenizer=processor.tokenizer,
        **switches,
    )
    say_json(_facts(found, args)) if args.json else say(_text(found, args))
    return 0


def _numbers(budget: Budget) -> dict[str, Any]:
    """The fields that are not the default."""
    values = {entry.name: (getattr(budget, entry.name), entry.default) for entry in fields(budget)}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, (value, default) in values.items()
        if value != default
    }


def _facts(found: Spread, args: Namespace) -> dict[str, Any]:
    return {
        "method": args.method,
        "enough": found.enough,
        "budget": _numbers(found.budget),
        "average": found.mean,
        "entered": found.entered,
        "averages": found.averages,
    }


def _text(found: Spread, args: Namespace) -> str:
    low, high = min(found.entered), max(found.entered)
    numbers = ", ".join(f"{name}: {value}" for name, value in _numbers(found.budget).items())
    return "\n".join(
        [
            f"{len(found.entered)} samples: {found.mean:.2f} visual tokens per layer, mean over pictures",
            f"{low} to {high} of {found.backbone.full} enter, {fmean(found.entered):.1f} on average",
            f"--method {args.method} --option enough={found.enough:g} --budget '{{{numbers}}}'",
        ]
    )
