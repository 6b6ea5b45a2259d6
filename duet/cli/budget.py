"""`duet budget list | show | solve | choose | spread`: what a budget keeps and costs, and which one is enough."""

from __future__ import annotations

import json
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from itertools import groupby
from pathlib import Path
from typing import Any

from duet.budget import (
    BACKBONES,
    RATIO_BASES,
    Backbone,
    Budget,
    Flops,
    Row,
    budgets,
    find_backbone,
    find_row,
    resolve_budget,
)
from duet.budget.counts import MEASURES
from duet.budget.fields import called, spans_of
from duet.budget.names import find_shape
from duet.budget.shapes import fit_shape
from duet.budget.solver import default_schedule
from duet.cli.choose import add_choice_arguments, choose
from duet.cli.compression import NUMBERS, add_shape_arguments
from duet.cli.output import say
from duet.cli.spread import add_spread_arguments, spread
from duet.cli.values import amount, amounts, layer_or_layers, positive, whole
from duet.errors import UserError

SUMMARY = "show, solve, list and choose token budgets"
EXAMPLES = """examples:
  duet budget list
  duet budget show llava15_128
  duet budget show llava15_128 --stages 1                      # for VisionZip, at the same average
  duet budget show --dominant 170 --contextual 35 --layers 16,24 --ratios 0.5,0
  duet budget show --dominant 100 --layers 16 --ratios 0.5 --frozen 24    # read, but not updated, from layer 24 on
  duet budget solve --average 128 --backbone llava15
  duet budget solve --average 64 --shape duet_safe
  duet budget solve --average 640 --backbone qwen2_5_vl --tokens 1280 --stages 2
  duet budget choose outputs/quickstart --within 1%           # the smallest that loses at most 1 % of the score
  duet budget spread --average 22.2 --samples samples.jsonl   # fewer tokens for simple pictures, at an equal mean
"""

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (0, ""))
_NAMES = {"both": "1+2", "stage1": "1", "stage2": "2"}


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the actions and their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|show|solve|choose|spread")
    every = actions.add_parser("list", help="all named budgets, stated and computed averages")
    every.add_argument("--json", action="store_true", help="print JSON")
    show = actions.add_parser("show", help="tokens per layer, average and costs of a budget")
    show.add_argument("name", nargs="?", help="a name, or a file of duet schedule; or give the numbers:")
    show.add_argument("--dominant", type=amount, help="tokens kept per picture, including CLS (170; a share: 0.3)")
    show.add_argument("--contextual", type=amount, help="merged tokens per picture (35; a share: 0.06)")
    show.add_argument("--layers", type=amounts, help="drop after these layers (16,24; shares of the depth: 0.5,0.75)")
    show.add_argument("--ratios", type=amounts, help="shares of the entering tokens left after them (0.5,0)")
    add_shape_arguments(show)
    _add_model_arguments(show, "default: the name's own, else llava15")
    solve = actions.add_parser("solve", help="find the counts for an average")
    solve.add_argument("--average", type=float, required=True, help="average visual tokens that enter a layer")
    solve.add_argument("--layers", type=amounts, help="stage-2 layers (default: the paper's 0.5,0.75)")
    solve.add_argument("--ratios", type=amounts, help="stage-2 ratios used with a stage 1 (default: the paper's 0.5,0)")
    solve.add_argument(
        "--contextual-share", type=float, help="of the tokens stage 1 keeps (default: by paper Table 12)"
    )
    solve.add_argument("--shape", help="duet_safe, the shape of a named budget or of a file; default: the paper's")
    solve.add_argument("--entry", type=amount, help="visual tokens enter after this layer (8; a share: 0.25)")
    solve.add_argument("--frozen", type=layer_or_layers, help="the first frozen layer, a share, or layers (0,2,17)")
    solve.add_argument("--away", type=amounts, help="layers without visual tokens, which come back after them (2,3)")
    solve.add_argument("--measure", choices=MEASURES, default=MEASURES[0], help="what the average counts")
    _add_model_arguments(solve, "default: llava15")
    add_choice_arguments(actions.add_parser("choose", help="the smallest budget whose score stays within a loss"))
    add_spread_arguments(actions.add_parser("spread", help="tokens that differ by picture, at an equal mean"))


def _add_model_arguments(parser: ArgumentParser, default: str) -> None:
    parser.add_argument("--cluster-width", type=positive, help="patches merged per contextual token (default: 4)")
    parser.add_argument("--ratio-base", choices=RATIO_BASES, help="the base of the stage-2 ratios (default: entered)")
    parser.add_argument("--stages", type=_stages, help="the method's stages: 1,2 (default) or 1 or 2")
    known = ", ".join(BACKBONES)
    parser.add_argument("--backbone", help=f"{known}, or the config.json of a checkpoint ({default})")
    parser.add_argument("--tokens", type=positive, help="visual tokens per picture, if they depend on its size (Qwen)")
    parser.add_argument("--pictures", type=positive, help="pictures, crops or frames per prompt")
    parser.add_argument("--text", type=whole, default=64, help="text tokens of the prompt, for the costs (default: 64)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: Namespace) -> int:
    """Print the result; returns the exit code.

    Raises:
        UserError: unknown names; numbers that are out of range or contradict each other.
    """
    if args.action == "choose":
        return choose(args)
    if args.action == "spread":
        return spread(args)
    if args.action == "list":
        rows = [find_row(name) for name in budgets()]
        say(json.dumps([_row_facts(row) for row in rows], indent=2) if args.json else _list_text(rows))
        return 0
    row, model, budget = _solved(args) if args.action == "solve" else _shown(args)
    facts = _facts(budget, model, args.text, row)
    say(json.dumps(facts, indent=2) if args.json else _show_text(facts))
    return 0


def _solved(args: Namespace) -> tuple[Row | None, Backbone, Budget]:
    if args.ratio_base is not None and args.stages == (1,):
        raise UserError("--ratio-base does nothing without stage 2")
    model = _backbone(args, "llava15")
    schedule = default_schedule(args.stages or (1, 2))
    if args.shape is not None:
        schedule = fit_shape(schedule, find_shape(args.shape), model, f"with stage {args.stages or (1, 2)}")
    budget = Budget.solve(
        args.average,
        model,
        schedule=schedule,
        contextual_share=args.contextual_share,
        cluster_width=_cluster_width(args),
        layers=args.layers,
        ratios=args.ratios,
        ratio_base=args.ratio_base or RATIO_BASES[0],
        entry=args.entry,
        frozen=args.frozen,
        away=args.away,
        measure=args.measure,
    )
    return None, model, budget


def _shown(args: Namespace) -> tuple[Row | None, Backbone, Budget]:
    numbers = {name: getattr(args, name) for name in NUMBERS}
    given = [f"--{name.replace('_', '-')}" for name, value in numbers.items() if value is not None]
    if args.name is not None:
        if given:
            raise UserError(f"{args.name} has its own numbers: leave out {', '.join(given)}, or the name")
        row = find_row(args.name)
        model = _backbone(args, row.backbone)
        schedule = default_schedule(tuple(args.stages or (1, 2)))
        return row, model, resolve_budget(args.name, schedule, model, ratio_base=args.ratio_base)
    if not given:
        raise UserError("nothing to show: give a name of `duet budget list`, or --dominant, --layers and --ratios")
    if args.stages is not None:
        raise UserError(
            "--stages chooses among the settings of a named budget; with numbers, leave out those of a stage"
        )
    chosen = {name: value for name, value in numbers.items() if value is not None}
    budget = Budget(**chosen, ratio_base=args.ratio_base or RATIO_BASES[0])
    return None, _backbone(args, "llava15"), budget


def _cluster_width(args: Namespace) -> int:
    return 4 if args.cluster_width is None else args.cluster_width


def _backbone(args: Namespace, default: str) -> Backbone:
    name = args.backbone or default
    if name not in BACKBONES and (name.endswith(".json") or Path(name).is_dir()):
        model = Backbone.from_config(name)
    else:
        model = find_backbone(name)
    if args.tokens is not None:
        return model.with_patches(args.tokens, args.pictures)
    return model if args.pictures is None else model.with_patches(model.known_patches, args.pictures)


def _facts(budget: Budget, model: Backbone, text: int, row: Row | None) -> dict[str, Any]:
    """Everything that is printed, as plain numbers. Costs need the picture's size, else they are None."""
    layers = budget.tokens_per_layer(model)
    entered = budget.entered(model)
    known = model.patches is not None
    counts = budget.counts(model)
    return {
        "name": row.name if row else None,
        "source": row.source if row else None,
        "note": row.note if row else "",
        "stated_average": row.target if row else None,
        "backbone": model.name,
        "pictures": model.pictures,
        "tokens_per_picture": model.patches,
        "cls": model.cls,
        "dominant": counts[0] if counts else None,
        "contextual": counts[1] if counts else None,
        "cluster_width": budget.cluster_width if counts else None,
        "layers": budget.layers_for(model.decoder.layers),
        "ratios": budget.ratios,
        "ratio_base": budget.ratio_base,
        "keep": budget.keep,
        "entry": budget.entry_for(model.decoder.layers),
        "frozen": budget.frozen_for(model.decoder.layers),
        "away": budget.away_for(model.decoder.layers),
        "kept": budget.keep_counts(entered, model.pictures),
        "entered": entered,
        "tokens_per_layer": layers,
        "updated_per_layer": budget.updated_per_layer(model),
        "average": budget.average(model),
        "updated_average": budget.average(model, "updated"),
        "flops_average": budget.average(model, "flops"),
        "text": text,
        "all_tokens": model.full if known else None,
        "costs": _costs(budget, model, text) if known else None,
        "costs_of_all_tokens": _costs(Budget(), model, text) if known else None,
    }


def _costs(budget: Budget, model: Backbone, text: int) -> dict[str, float]:
    flops: Flops = budget.flops(model, text=text)
    return {
        "tower_flops": flops.tower,
        "projector_flops": flops.projector,
        "prefill_flops": flops.prefill,
        "total_flops": flops.total,
        "decode_flops": flops.decode,
        "kv_bytes": sum(budget.kv_bytes(model, text=text)),
    }


def _show_text(facts: dict[str, Any]) -> str:
    lines = [f"{facts['name'] or 'budget'} on {facts['backbone']}"]
    if facts["source"]:
        lines.append(_line("source", facts["source"]))
    lines.append(_line("prompt", _prompt(facts)))
    if facts["dominant"] is not None:
        cls = " (including CLS)" if facts["cls"] else ""
        lines.append(_line("stage 1", f"{facts['dominant']} dominant{cls} + {facts['contextual']} contextual"))
        each = facts["entered"] // facts["pictures"]
        lines.append(
            _line("", f"= {each} per picture, {facts['entered']} per prompt; clusters of {facts['cluster_width']}")
        )
    if facts["entry"]:
        lines.append(_line("entry", f"after layer {facts['entry']}; the layers before see text only"))
    for start, end in spans_of(facts["away"]):
        lines.append(_line("away", f"in {called((start, end))}, counted from 0; then as they were"))
    base = "compounding" if facts["ratio_base"] == "compounding" else f"of {facts['entered']}"
    shares = facts["ratios"] or facts["keep"]
    base = "per picture" if facts["keep"] else base
    for layer, share, kept in zip(facts["layers"], shares, facts["kept"], strict=True):
        lines.append(_line("stage 2", f"after layer {layer}: {share:g} {base} -> {kept}"))
    first, *others = _ranges(facts["tokens_per_layer"])
    lines += [_line("tokens per layer", first), *(_line("", other) for other in others)]
    if facts["frozen"]:
        first, *others = _ranges(facts["updated_per_layer"])
        lines += [_line("of them updated", first), *(_line("", other) for other in others)]
    lines.append(_line("average", _average(facts)))
    if facts["frozen"]:
        lines.append(_line("", f"{facts['updated_average']:.2f} updated; {facts['flops_average']:.2f} by operations"))
    if facts["note"]:
        lines.append(_line("note", facts["note"]))
    return "\n".join([*lines, "", *_cost_lines(facts)])


def _prompt(facts: dict[str, Any]) -> str:
    each = facts["tokens_per_picture"]
    size = "patches depending on its resolution" if each is None else f"{each} patches"
    return f"{facts['pictures']} picture(s), each {size}{' and CLS' if facts['cls'] else ''}"


def _average(facts: dict[str, Any]) -> str:
    text = f"{facts['average']:.2f} visual tokens"
    if facts["all_tokens"]:
        text += f" of {facts['all_tokens']} ({100 * facts['average'] / facts['all_tokens']:.1f} %)"
    return text if facts["stated_average"] is None else f"{text}; stated {facts['stated_average']:g}"


def _ranges(counts: tuple[int, ...]) -> list[str]:
    entries, first = [], 1
    for count, group in groupby(counts):
        last = first + len(list(group)) - 1
        entries.append(f"{f'{first}-{last}':>7}: {count}")
        first = last + 1
    return entries


def _cost_lines(facts: dict[str, Any]) -> list[str]:
    ours, full = facts["costs"], facts["costs_of_all_tokens"]
    if ours is None:
        return ["  costs depend on the size of the picture: add --tokens"]
    title = f"costs ({facts['text']} text tokens)"
    lines = [f"  {title:<26}{'budget':>12}{'all tokens':>12}{'share':>16}"]
    for label, key, unit in (
        ("tower", "tower_flops", "FLOP"),
        ("projector", "projector_flops", "FLOP"),
        ("prefill", "prefill_flops", "FLOP"),
        ("up to the first token", "total_flops", "FLOP"),
        ("each further token", "decode_flops", "FLOP"),
        ("KV cache at 16 bit", "kv_bytes", "B"),
    ):
        size, prefix = next((size, prefix) for size, prefix in _PREFIXES if full[key] >= size)
        share = f"{100 * ours[key] / full[key]:.1f} %"
        numbers = f"{ours[key] / size:>12.4g}{full[key] / size:>12.4g}"
        lines.append(f"  {label:<26}{numbers} {f'{prefix}{unit}':<6}{share:>9}")
    return lines


def _list_text(rows: list[Row]) -> str:
    lines = [f"{'name':<24}{'stated':>8}  {'computed average (stages)':<36}source"]
    for row in rows:
        found = ", ".join(f"{average:g} ({_NAMES[key]})" for key, average in row.averages.items())
        mark = " *" if row.note else ""
        lines.append(f"{row.name:<24}{row.target:>8g}  {found:<36}{row.source}{mark}")
    lines.append("Settings that are not listed are solved for the stated average.")
    lines.append("* has a note: duet budget show NAME")
    return "\n".join(lines)


def _row_facts(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "backbone": row.backbone,
        "stated_average": row.target,
        "computed_averages": row.averages,
        "source": row.source,
        "note": row.note,
    }


def _line(label: str, text: str) -> str:
    return f"  {label:<18}{text}"


def _stages(text: str) -> tuple[int, ...]:
    stages = {"1": (1,), "2": (2,), "1,2": (1, 2)}
    if text not in stages:
        raise ArgumentTypeError(f"{text!r} is not a choice of stages; give 1,2 or 1 or 2")
    return stages[text]
