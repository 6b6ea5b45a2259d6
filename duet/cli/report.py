"""`duet report`: table and plot of a sweep."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from duet.cli.output import say
from duet.errors import UserError
from duet.extras import need

SUMMARY = "print the table of a sweep; write it and the accuracy plot next to the results"
EXAMPLES = """examples:
  duet report outputs/quickstart
  duet report outputs/quickstart --draws 0          # without intervals

Writes table.md, table.json and accuracy.png into the folder. Missing runs are marked.
"""
DRAWS = 1000


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="output folder of `duet sweep`")
    parser.add_argument(
        "--draws", type=int, default=DRAWS, metavar="N", help=f"bootstrap draws, 0 for no intervals (default: {DRAWS})"
    )
    parser.add_argument("--format", choices=("png", "pdf", "svg"), default="png", help="of the plot (default: png)")


def run(args: Namespace) -> int:
    """Write and print; returns the exit code.

    Raises:
        UserError: no sweep in the folder, or missing benchmark files.
    """
    need("duet report", "plot", "matplotlib")
    if args.draws < 0:
        raise UserError(f"--draws is {args.draws}; give 0 or more")
    from duet.report.render import markdown
    from duet.report.writing import FILES, PLOT, write_report

    say(markdown(write_report(args.folder, args.draws, args.format)))
    say(f"written: {', '.join(str(args.folder / name) for name in (*FILES, f'{PLOT}.{args.format}'))}")
    return 0
