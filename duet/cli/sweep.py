"""`duet sweep`: runs a grid of models, methods and budgets; finished runs are not repeated."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from duet.cli.output import say
from duet.errors import UserError

if TYPE_CHECKING:
    from duet.eval.running.grid import Grid

SUMMARY = "run a grid of models, methods and budgets; an interrupted one continues"
EXAMPLES = """examples:
  duet sweep quickstart
  duet sweep configs/eval/figure7.yaml limit=500 models.llava15=liuhaotian/llava-v1.5-7b --dry-run
  accelerate launch --num_processes 8 -m duet.cli.main sweep configs/eval/figure3.yaml

The results are in OUTPUT/MODEL/METHOD@BUDGET/TASK; `duet table` and `duet plot` read them from there.
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "grid", type=Path, metavar="GRID.yaml", help="a file, or a name of configs/eval: quickstart, methods ..."
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides a value of the file")
    parser.add_argument("--overwrite", action="store_true", help="delete existing results")
    parser.add_argument("--dry-run", action="store_true", help="list the runs, with finished tasks and errors")


def run(args: Namespace) -> int:
    """Run the grid or list its runs; returns the exit code.

    Raises:
        UserError: an unusable file, name or number.
    """
    grid = read_grid(args.grid, args.overrides)
    if args.dry_run:
        from duet.eval.running.preflight import grid_problems, missing_data

        say("\n".join(_listing(grid)))
        sys.stderr.write("".join(f"{line}\n" for line in missing_data(grid)))
        problems = list(grid_problems(grid))
        if problems:
            raise UserError(f"this grid would not run: {'; '.join(problems)}")
        return 0
    from duet.cli.eval import quiet
    from duet.eval.running.sweep import run_grid

    quiet()
    cells = run_grid(grid, overwrite=args.overwrite)
    say(f"{len(cells)} runs on {', '.join(grid.tasks)}: {grid.output}")
    return 0


def read_grid(path: Path, overrides: list[str]) -> Grid:
    """A grid, by its file or its name in `configs/eval`, with its overrides and its `vary` section applied.

    Raises:
        UserError: no such file, not YAML, or not a grid.
    """
    from duet.config import build, override, read_mapping
    from duet.eval.running.grid import Grid
    from duet.eval.running.vary import expand
    from duet.shipped import find_config

    path = find_config(path, "eval")
    return build(Grid, expand(override(read_mapping(path), overrides)), str(path))


def _listing(grid: Grid) -> list[str]:
    from duet.eval.benchmarks import get

    lines, tasks = [], [get(task).name for task in grid.tasks]
    for cell in grid.cells():
        done = sum((grid.folder(cell) / task / "metrics.json").exists() for task in tasks)
        lines.append(f"{done} of {len(grid.tasks)} done  {cell}")
    return lines
