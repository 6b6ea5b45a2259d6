"""`duet methods`: the rows of the paper's tables by name, and the stages that each is made of."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from duet.cli.options import SWITCHES
from duet.cli.output import say, say_json, table
from duet.method_table import ALIASES, METHODS

if TYPE_CHECKING:
    from duet.method_table import Method, Part

SUMMARY = "list the methods: rows of the paper's tables by name"
EXAMPLES = """examples:
  duet methods
  duet methods --json
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: Namespace) -> int:
    """Print the table; returns the exit code."""
    rows = [_facts(name, method) for name, method in METHODS.items()]
    if args.json:
        say_json([{**row, "aliases": _aliases(row["name"])} for row in rows])
        return 0
    say(table(("name", "stage 1", "stage 2", "what"), [tuple(row.values()) for row in rows]))
    say("")
    say("\n".join(f"{alias} is {name}, what the released scripts run" for alias, name in ALIASES.items()))
    say("switches: " + ", ".join(f"--{name.replace('_', '-')}" for name in SWITCHES) + " (duet ask --help)")
    return 0


def _facts(name: str, method: Method) -> dict[str, str]:
    return {"name": name, "stage 1": _stage(method.reducer), "stage 2": _stage(method.pruner), "what": method.about}


def _stage(part: Part | None) -> str:
    if part is None:
        return "-"
    variant = ", ".join(part.arguments.values())
    return part.name + (f" ({variant})" if variant else "")


def _aliases(name: str) -> list[str]:
    return [alias for alias, target in ALIASES.items() if target == name]
