"""Options for method, budget and switches, and the budget built from them."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from duet.budget import Budget
from duet.cli.values import above_zero, amount, amounts, layer_or_layers, no_number, option, positive
from duet.errors import UserError
from duet.registry import described

if TYPE_CHECKING:
    from duet.budget import Backbone
    from duet.method_table import Method

#: Average share of the visual tokens kept by default: the paper's 128 of 576.
DEFAULT_SHARE = 2 / 9
#: `(tokens per picture, decoder layers)` of the model for which the paper gives a budget of that share.
PAPER_SHAPE, PAPER_BUDGET = (576, 32), "llava15_128"

#: Fields of a budget that are options.
NUMBERS = tuple(entry.name for entry in fields(Budget) if entry.name != "ratio_base")
SWITCHES = {
    "contextual_merge": "released, paper or visionzip: how contextual tokens are made",
    "score": "cls_row or column_mean: what makes a patch dominant",
    "text_guidance": "last, all, salient or attention: which text tokens vote",
    "positions": "renumber or keep the position ids of the remaining tokens",
    "ratio_base": "entered or compounding: the base of the stage-2 ratios",
    "salient_rule": "stopwords or pos: which words are salient",
    "attention": "plain or proportional: a merged token counts once, or as often as it has patches",
    "newlines": "keep or drop: newline tokens between the rows of a picture (LLaVA-NeXT)",
}


def add_compression_arguments(parser: ArgumentParser) -> None:
    """Declare method, budget and switches."""
    compression = parser.add_argument_group(
        "compression", "One of --budget, --average, or the numbers; default: two ninths of the tokens."
    )
    compression.add_argument(
        "--method", help="a name from `duet methods` (default: what the checkpoint was trained with, else duet)"
    )
    compression.add_argument(
        "--budget", type=no_number, metavar="NAME", help="a name from `duet budget list`, or a file of duet schedule"
    )
    compression.add_argument(
        "--average", type=above_zero, metavar="TOKENS", help="solve for this average of tokens per layer"
    )
    compression.add_argument(
        "--dominant", type=amount, help="tokens kept per picture, including CLS (170; a share: 0.3)"
    )
    compression.add_argument("--contextual", type=amount, help="merged tokens per picture (35; a share: 0.06)")
    compression.add_argument("--cluster-width", type=positive, help="patches merged per contextual token (default: 4)")
    compression.add_argument("--layers", type=amounts, help="drop after these layers (16,24; shares: 0.5,0.75)")
    compression.add_argument("--ratios", type=amounts, help="shares of the entering tokens left after them (0.5,0)")
    add_shape_arguments(compression)
    compression.add_argument(
        "--shape", metavar="NAME", help="with --average: duet_safe, a budget's or a file's, not the method's own"
    )
    parser.set_defaults(trained=None)
    add_switches(parser)


def choose_method(args: Namespace, path: str) -> None:
    """Fill in what the checkpoint was trained with where no method is given, else `duet`; says so in one line.

    Raises:
        CheckpointError: its duet_config.json is damaged.
    """
    from duet.checkpoints.setting import find_setting

    if args.method is not None:
        return
    trained = find_setting(path)
    args.method = "duet" if trained is None else trained.method
    if trained is None:
        return
    for name, value in trained.switches.items():
        if name in SWITCHES:
            setattr(args, name, value if getattr(args, name) is None else getattr(args, name))
        elif name not in dict(args.option):
            args.option.append((name, value))
    args.companion = args.companion or trained.companion
    told = "with the budget given"
    if args.budget is None and args.average is None and not _numbers(args):
        args.trained, told = trained.budget, described(trained.budget)
    sys.stderr.write(f"{path}: {trained.method} as it was trained (duet_config.json), {told}\n")


def add_shape_arguments(parser: Any) -> None:
    """Declare the numbers beyond the paper's: absolute counts, entry, frozen and away layers."""
    parser.add_argument("--keep", type=amounts, help="instead of --ratios, tokens left per picture (48,16)")
    parser.add_argument("--entry", type=amount, help="visual tokens enter after this layer (8; a share: 0.25)")
    parser.add_argument(
        "--frozen",
        type=layer_or_layers,
        help="read them but do not update them from this layer on (16; a share: 0.5), or in these (0,2,17)",
    )
    parser.add_argument("--away", type=amounts, help="layers without visual tokens, which come back after them (2,3)")


def add_switches(parser: ArgumentParser) -> None:
    """Declare the switches, including those of single methods."""
    switches = parser.add_argument_group(
        "switches", "Where paper and released code differ; default: the released code."
    )
    for name, meaning in SWITCHES.items():
        switches.add_argument(f"--{name.replace('_', '-')}", metavar="CHOICE", help=meaning)
    switches.add_argument(
        "--option",
        type=option,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a switch that only this method has, e.g. alpha=2.0 (`duet methods NAME` lists them); may be repeated",
    )
    switches.add_argument(
        "--companion", metavar="PATH", help="CLIP checkpoint of the tower, for methods that need its text tower"
    )


def switches_of(args: Namespace) -> dict[str, Any]:
    """The given switches, for `duet.attach`."""
    from duet.method_table import find_method

    given = {name: getattr(args, name) for name in (*SWITCHES, "companion") if getattr(args, name) is not None}
    if "positions" in given and not find_method(args.method).stages:
        raise UserError(f"method {args.method} keeps all tokens; --positions would do nothing")
    for name, value in args.option:
        if name in given or name in SWITCHES:
            raise UserError(f"--option {name}: given twice, or has its own option (--{name.replace('_', '-')})")
        given[name] = value
    return given


def find_budget(args: Namespace, method: Method, backbone: Backbone) -> Budget:
    """The budget of the arguments, for a method on a model."""
    from duet.budget import resolve_budget

    given: Budget | str | float | None = args.budget if args.budget is not None else args.average
    if given is None and _numbers(args):
        given = Budget(**_numbers(args), **_base(args))
    elif given is None and method.stages:
        paper = (backbone.patches, backbone.decoder.layers) == PAPER_SHAPE
        given = args.trained or (PAPER_BUDGET if paper else DEFAULT_SHARE * backbone.full)
    return resolve_budget(
        given, method.schedule, backbone, method=args.method, ratio_base=args.ratio_base, shape=args.shape
    )


def _numbers(args: Namespace) -> dict[str, Any]:
    return {name: getattr(args, name) for name in NUMBERS if getattr(args, name) is not None}


def _base(args: Namespace) -> dict[str, Any]:
    """The switch that applies when a budget is solved; it goes with every way to give a budget."""
    return {} if args.ratio_base is None else {"ratio_base": args.ratio_base}


def check_budget(args: Namespace, method: Method | None) -> None:
    """Whether the ways to ask for a budget fit each other and the method, None for several; loads no model.

    Raises:
        UserError: they don't.
    """
    from duet.budget import find_row
    from duet.budget.names import find_shape
    from duet.method_table import reads_width

    ways = [f"--{name}" for name in ("budget", "average") if getattr(args, name) is not None]
    ways += [" ".join(f"--{name.replace('_', '-')}" for name in _numbers(args))] if _numbers(args) else []
    if len(ways) > 1:
        raise UserError(f"{' and '.join(ways)} contradict each other; give one of them")
    if args.shape is not None:
        if args.average is None:
            raise UserError("--shape goes with --average, which it is solved for")
        find_shape(args.shape)
    shaped = set(_numbers(args)) <= {"layers", "ratios", "entry", "frozen", "away"} and args.budget is None
    if ways and method is not None and not method.stages and not (shaped and args.average is None):
        raise UserError(f"method {args.method} keeps all tokens; {ways[0]} would have no effect")
    if method is not None and args.cluster_width is not None and not reads_width(method, args.contextual_merge):
        raise UserError(f"method {args.method} makes no local clusters; --cluster-width would do nothing")
    if args.budget is not None:
        find_row(args.budget)
    Budget(**_numbers(args), **_base(args))
