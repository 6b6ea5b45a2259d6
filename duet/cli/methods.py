"""`duet methods`: every method by name, with its stages, needs, backbones, paper, code and file."""

from __future__ import annotations

import textwrap
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from duet.cli.compression import SWITCHES
from duet.cli.output import say, say_json, table
from duet.errors import UserError
from duet.method_table import ALIASES, METHODS, find_method, methods

if TYPE_CHECKING:
    from duet.method_table import Method, Part

SUMMARY = "list the methods, or show one"
EXAMPLES = """examples:
  duet methods
  duet methods scope
  duet methods stage1:scope+stage2:duet_prune
  duet methods --plugin mine.py --json
"""
_WIDTH = 100


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", nargs="?", help="a method, or a composition: stage1:NAME+stage2:NAME")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--markdown", action="store_true", help="print the table of docs/methods.md")


def run(args: Namespace) -> int:
    """Print the table or one method; returns the exit code."""
    methods()  # also loads those of installed packages
    if args.name is not None and args.markdown:
        raise UserError("--markdown prints the table of all methods; leave out the name, or give --json")
    if args.name is not None:
        facts = _facts(find_method(args.name))
        say_json(facts) if args.json else say(_one(facts))
        return 0
    rows = [_facts(method) for method in METHODS.values()]
    if args.json:
        say_json(rows)
        return 0
    if args.markdown:
        say(_markdown(rows))
        return 0
    header = ("name", "stage 1", "stage 2", "budget", "paper", "what")
    say(table(header, [tuple(row[name] or "-" for name in header) for row in rows]))
    say("")
    say("\n".join(f"{alias} is {name}, as run by the released scripts" for alias, name in ALIASES.items()))
    say("Details of a method: duet methods NAME.")
    say("Any stage 1 and stage 2 can be combined: stage1:NAME+stage2:NAME.")
    return 0


def _facts(method: Method) -> dict[str, Any]:
    from duet.registry import backbones_of

    return {
        "name": method.name,
        "what": method.about,
        "stage 1": _stage(method.reducer),
        "stage 2": _stage(method.pruner),
        "budget": method.schedule.name if method.schedule else "",
        "positions": method.positions or "the backbone's",
        "paper": method.paper,
        "code": method.code,
        "files": [part.file.replace(".", "/") + ".py" for part in (method.reducer, method.pruner) if part],
        "needs": {f"stage {stage}": needs for stage, needs in _needs(method).items()},
        "backbones": backbones_of(method),
        "switches": [*_switches(method), "positions"] if method.stages else [],
        "note": method.note,
        "aliases": [alias for alias, target in ALIASES.items() if target == method.name],
    }


def _markdown(rows: list[dict[str, Any]]) -> str:
    lines = ["| name | paper | code | file | stages | needs | backbones |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        stages = " + ".join(stage for stage in ("1", "2") if row[f"stage {stage}"])
        needs = ", ".join(dict.fromkeys(name for names in row["needs"].values() for name in names))
        files = ", ".join(f"`{file}`" for file in row["files"])
        where = "all" if row["backbones"] == _all_backbones() else ", ".join(row["backbones"])
        cells = (f"`{row['name']}`", row["paper"], row["code"], files, stages, needs, where)
        lines.append(f"| {' | '.join(cell or '-' for cell in cells)} |")
    notes = [f"* `{row['name']}`: {row['note']}" for row in rows if row["note"]]
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def _all_backbones() -> list[str]:
    from duet.families import FAMILIES

    return [family.name for family in FAMILIES]


def _one(facts: dict[str, Any]) -> str:
    needs = "; ".join(f"{stage}: {', '.join(names)}" for stage, names in facts["needs"].items() if names)
    lines = {**facts, "needs": needs or "features only"}
    shown = []
    for name, value in lines.items():
        text = ", ".join(value) if isinstance(value, list) else value
        if text:
            shown += textwrap.wrap(text, _WIDTH, initial_indent=f"{name:<12}", subsequent_indent=" " * 12)
    return "\n".join(shown)


def _stage(part: Part | None) -> str:
    if part is None:
        return ""
    variant = ", ".join(map(str, part.arguments.values()))
    return part.name + (f" ({variant})" if variant else "")


def _needs(method: Method) -> dict[int, list[str]]:
    parts = {1: method.reducer, 2: method.pruner}
    return {stage: sorted(part.build().needs) for stage, part in parts.items() if part is not None}


def _switches(method: Method) -> list[str]:
    parts = [part for part in (method.reducer, method.pruner) if part is not None]
    own = [name for part in parts for name in part.options()]
    return [f"--{name.replace('_', '-')}" if name in SWITCHES else f"--option {name}=" for name in dict.fromkeys(own)]
