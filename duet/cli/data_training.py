"""`duet data check-training`: what a recipe will train on, whether it is whole, and what the training will cost."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from duet.cli.output import say, table
from duet.cli.values import above_zero, positive, share
from duet.errors import UserError
from duet.extras import need
from duet.files import check_output_file

if TYPE_CHECKING:
    from duet.budget import Backbone
    from duet.train.arguments import Recipe
    from duet.train.survey import Survey

SHOWN = 10
GIB, TERA = 2**30, 1e12


def add_arguments(actions: Any) -> None:
    """Declare `check-training` among the actions of `duet data`."""
    parser = actions.add_parser("check-training", help="count and check what a recipe trains on, and estimate its cost")
    parser.add_argument("recipe", metavar="RECIPE", help="YAML file of a training")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="as for the training")
    parser.add_argument("--deep", action="store_true", help="decode every picture and video, not only its header")
    parser.add_argument("--bad-rows", type=share, metavar="SHARE", help="fail above it (default: data.bad_rows)")
    parser.add_argument("--gpus", type=positive, default=1, metavar="N", help="processes of the run (default: 1)")
    parser.add_argument(
        "--tflops", type=above_zero, metavar="X", help="what a GPU sustains in TFLOP/s, to estimate hours"
    )
    parser.add_argument(
        "--compare", action="append", default=[], metavar="METHOD=BUDGET", help="also count operations under this one"
    )
    parser.add_argument("--histogram", metavar="PNG", help="draw the lengths of the rows")
    parser.add_argument("--json", metavar="OUT", help="write everything to this file, with all bad rows")
    parser.add_argument("--workers", type=positive, default=8, metavar="N", help="threads that read files (default: 8)")


def run(args: Namespace) -> int:
    """Print the survey; returns the exit code.

    Raises:
        UserError: an unusable recipe, checkpoint or file, or a larger share of bad rows than allowed.
    """
    from duet.train.survey import Surveyor

    if args.histogram:
        need("--histogram", "plot", "matplotlib")
    for path in (args.json, args.histogram):
        if path:
            check_output_file(path)
    recipe = read(args.recipe, args.overrides)
    surveyor = Surveyor(recipe, args.deep, args.gpus, args.workers)
    found = surveyor.survey(budgets_of(recipe, args.compare, surveyor.backbone))
    say("\n".join(lines(found, args)))
    if args.json:
        with open(args.json, "w", encoding="utf-8") as out:
            json.dump(asdict(found), out, ensure_ascii=False, indent=1)
    if args.histogram:
        draw(found, recipe.training.model_max_length, args.histogram)
    limit = recipe.data.bad_rows if args.bad_rows is None else args.bad_rows
    if found.share > limit:
        raise UserError(
            f"{len(found.faults)} of {found.rows + len(found.faults)} rows are bad ({found.share:.2%}, allowed are "
            f"{limit:.2%}): {found.faults[0]}"
        )
    return 0


def read(path: str, overrides: list[str]) -> Recipe:
    """The recipe, on a machine without the training's GPUs and packages.

    Raises:
        ConfigError: an unusable file or entry.
    """
    from duet.config import override, read_mapping
    from duet.train.arguments import read_elsewhere

    return read_elsewhere(override(read_mapping(path), overrides), path)


def budgets_of(recipe: Recipe, compared: list[str], backbone: Backbone) -> dict[str, Any]:
    """The recipe's budgets by name, then those to compare, then all tokens.

    Raises:
        UserError: an unknown method or budget.
    """
    from duet.budget import Budget
    from duet.config import parse_value
    from duet.eval.running.grid import find_budget
    from duet.train.elastic import read_choices, typical

    known = backbone if backbone.patches is not None else backbone.with_patches(1280)
    found: dict[str, Any] = {}
    chosen = recipe.compression
    base = chosen.switches.get("ratio_base")
    if chosen.method != "none":
        for choice in read_choices(chosen.budget):
            given = typical(choice)
            if given is not None:
                budget = given if isinstance(given, Budget) else find_budget(given, chosen.method, known, base)
                name = given if isinstance(given, str) else f"{budget.average(known):g}"
                found[f"{chosen.method} {name}"] = budget
    for text in compared:
        method, equals, numbers = text.partition("=")
        if not equals:
            raise UserError(f"--compare {text}: expected METHOD=BUDGET")
        found[text.replace("=", " ", 1)] = find_budget(parse_value(numbers, "--compare"), method, known)
    if chosen.method == "none":
        return {"all tokens": None, **found}
    return {**found, "all tokens": None}


def lines(found: Survey, args: Namespace) -> list[str]:
    """The survey as text."""
    told = [f"{path}: {count:,} rows" for path, count in found.files.items()]
    told.append(
        f"{found.rows:,} rows to train ({found.text_only:,} of text only), {found.pictures:,} pictures, "
        f"{found.videos:,} videos; {len(found.faults):,} bad rows ({found.share:.2%})"
    )
    told += [f"  {fault}" for fault in found.faults[:SHOWN]]
    if len(found.faults) > SHOWN:
        told.append(f"  ... and {len(found.faults) - SHOWN:,} more; --json lists them")
    if not found.rows:
        return told
    ordered = sorted(found.lengths)
    quantiles = {name: ordered[min(int(share * len(ordered)), len(ordered) - 1)] for name, share in
                 (("median", 0.5), ("90 %", 0.9), ("99 %", 0.99), ("longest", 1.0))}  # fmt: skip
    told.append(
        f"tokens of an epoch: {found.text:,} of text, {found.learned:,} of them learned, {found.visual:,} visual"
    )
    shown = ", ".join(f"{name} {value:,}" for name, value in quantiles.items())
    told.append(f"length of a row: {shown}; {found.cut:,} rows are cut at model_max_length")
    told.append(histogram(found.lengths))
    told += cost(found, args)
    return told


def cost(found: Survey, args: Namespace) -> list[str]:
    """Operations, hours and memory."""
    whole = found.flops["all tokens"]
    rows = []
    for name, flops in found.flops.items():
        hours = f"{flops / (args.gpus * args.tflops * TERA * 3600):,.2f}" if args.tflops else "-"
        rows.append([name, f"{flops / TERA:,.4g}", f"{flops / whole - 1:+.1%}", hours])
    told = [f"{found.steps:,} steps on {args.gpus} GPU(s)"]
    told.append(table(["method", "TFLOP", "change", "hours"], rows))
    if not args.tflops:
        told.append("hours: say what a GPU sustains, for example --tflops 350")
    trained = [f"{part} {size / 1e6:,.4g}M ({learned / 1e6:,.4g}M)" for part, (size, learned) in found.parts.items()]
    told.append(f"parameters (trained): {', '.join(trained)}")
    memory = found.memory
    if memory is not None:
        shown = ", ".join(f"{name} {value / GIB:,.2f}" for name, value in asdict(memory).items())
        told.append(f"memory per GPU, about {memory.total / GIB:,.2f} GiB: {shown} (a batch of the longest rows)")
    return told


def histogram(lengths: list[int], bins: int = 12, width: int = 40) -> str:
    """Lengths as bars of text."""
    step = max(-(-max(lengths) // bins), 1)
    counts = [0] * (max(lengths) // step + 1)
    for length in lengths:
        counts[length // step] += 1
    most = max(counts)
    return "\n".join(
        f"  {place * step:>6,} {'#' * -(-count * width // most)} {count:,}"
        for place, count in enumerate(counts)
        if count
    )


def draw(found: Survey, limit: int, path: str) -> None:
    """The lengths as a picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.hist(found.lengths or [0], bins=60, color="#3b6ea5")
    axes.axvline(limit, color="#b03a2e", linewidth=1, label=f"model_max_length {limit:,}")
    axes.set_xlabel("tokens of a row, visual ones included")
    axes.set_ylabel("rows")
    axes.legend(frameon=False, loc="upper right")
    figure.savefig(path, dpi=150, format="png")
