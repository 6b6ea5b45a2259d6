"""`duet budget choose`: the smallest budget whose score stays within a loss, from existing results."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duet.cli.output import say, say_json, table
from duet.cli.values import positive

if TYPE_CHECKING:
    from duet.report.choice import Choice, Option

FOUND, NONE = 0, 3
DRAWS = 1000


def add_choice_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = (
        "For every model and method in a folder of results: the smallest budget whose loss of average score is within "
        "LOSS, for the whole 95 % interval of a paired bootstrap over pictures. Exit code 3 if one of them has none."
    )
    parser.add_argument("results", type=Path, metavar="DIR", help="outputs of duet eval or duet sweep")
    parser.add_argument(
        "--within",
        type=percent,
        required=True,
        metavar="LOSS",
        help="share of the full score: 1%% or 0.5%%",
    )
    parser.add_argument("--model", action="append", default=[], metavar="NAME", help="only results of this model")
    parser.add_argument("--method", action="append", default=[], metavar="NAME", help="only this method")
    parser.add_argument("--tasks", metavar="A,B", help="average over these (default: all that have a full result)")
    parser.add_argument("--draws", type=positive, default=DRAWS, metavar="N", help="bootstrap draws (default: 1000)")
    parser.add_argument("--json", action="store_true", help="print JSON, with all budgets")


def percent(text: str) -> float:
    """A loss: `1%`, `0.5 %` or `1`."""
    try:
        loss = float(text.strip().removesuffix("%"))
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a loss; give one like 1%") from None
    if not 0 < loss < 100:
        raise ArgumentTypeError(f"{text} is out of range; give more than 0% and less than 100%")
    return loss


def choose(args: Namespace) -> int:
    """Print the choices; returns the exit code.

    Raises:
        UserError: results that are missing, or cannot be compared.
    """
    from duet.method_table import find_method
    from duet.report.choice import find_choices

    methods = [find_method(name).name for name in args.method]
    tasks = [] if args.tasks is None else [task.strip() for task in args.tasks.split(",")]
    choices = find_choices(args.results, args.within, args.model, methods, tasks, args.draws)
    if args.json:
        say_json([_facts(choice) for choice in choices])
    else:
        say("\n".join(_text(choices)))
    return FOUND if all(choice.chosen for choice in choices) else NONE


def _text(choices: list[Choice]) -> list[str]:
    rows = []
    for choice in choices:
        chosen = choice.chosen
        switches = "".join(f" {name}={value}" for name, value in choice.switches.items())
        cells = ("none", "-", "-", "-") if chosen is None else _cells(chosen)
        rows.append((choice.model, choice.method + switches, *cells))
    loss = f"{choices[0].within:g}"
    lines = [table(("model", "method", "budget", "tokens", "% of full", "95 %"), rows)]
    lines.append(f"the smallest budget whose interval stays above {100 - choices[0].within:g} % (loss within {loss} %)")
    for choice in choices:
        lines += [f"{choice.model} {choice.method}: {remark}" for remark in _remarks(choice)]
    lines += sorted({f"average over {', '.join(choice.tasks)}" for choice in choices})
    lines += sorted({f"{task}: {part}" for choice in choices for task, part in choice.subsets.items()})
    return lines


def _remarks(choice: Choice) -> list[str]:
    """Remarks on one choice."""
    remarks = []
    if choice.chosen is None and choice.options:
        best = max(choice.options, key=lambda option: option.ends[0])
        low, high = best.ends
        score = f"{best.percent:.1f} % ({low:.1f} to {high:.1f})"
        remarks.append(f"the best of {len(choice.options)} budgets has {score} at {best.tokens:.1f} tokens")
    likely = choice.likely
    if likely is not None and likely != choice.chosen:
        score = f"{likely.tokens:.1f} tokens have {likely.percent:.1f} %"
        remarks.append(f"{score}, but more questions are needed to be sure")
    larger = [option for option in choice.options if choice.chosen and option.tokens > choice.chosen.tokens]
    worse = [f"{option.tokens:.1f}" for option in larger if option.ends[0] < 100 - choice.within]
    if worse:
        remarks.append(f"some larger budgets are not: {', '.join(worse)} tokens; see all budgets (--json)")
    if choice.skipped:
        remarks.append(f"left out, because benchmarks are missing: {', '.join(choice.skipped)}")
    return remarks


def _cells(option: Option) -> tuple[str, str, str, str]:
    low, high = option.ends
    return option.name, f"{option.tokens:.1f}", f"{option.percent:.1f}", f"{low:.1f} to {high:.1f}"


def _facts(choice: Choice) -> dict[str, Any]:
    return {
        "model": choice.model,
        "method": choice.method,
        "switches": choice.switches,
        "tasks": list(choice.tasks),
        "subsets": {task: part.as_json() for task, part in choice.subsets.items()},
        "within_percent": choice.within,
        "chosen": choice.chosen and _option(choice.chosen),
        "likely": choice.likely and _option(choice.likely),
        "options": [_option(option) for option in choice.options],
        "skipped": list(choice.skipped),
    }


def _option(option: Option) -> dict[str, Any]:
    low, high = option.ends
    facts = {"budget": option.name, "tokens": option.tokens, "percent": option.percent}
    return {**facts, "percent_low": low, "percent_high": high, "numbers": asdict(option.budget)}
