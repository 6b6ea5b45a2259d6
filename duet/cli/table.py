"""`duet table`: the paper's tables with printed and measured values, and the commands that fill them."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from duet.cli.output import say
from duet.cli.values import method_names, positive
from duet.errors import UserError
from duet.files import check_output_file, check_output_folder

if TYPE_CHECKING:
    from duet.report.paper import PaperTable
    from duet.report.render import Table

SUMMARY = "print a table of the paper with measured values, or the commands that fill it"
EXAMPLES = """examples:
  duet table 1                                      # printed values, and those measured in outputs/paper/llava15
  duet table 1 --plan                               # the commands that fill it
  duet table 1 --run --tokens 64 --rows fastv,duet_c --processes 8    # fills only these rows, and prints them
  duet table 8 --results outputs/quickstart --model llava-mini --format latex
  duet table 3 --results outputs/quickstart --model llava-mini-duet --baseline llava-mini
  duet table 12                                     # the token budgets
  duet table mini                                   # the quickstart's own table, from outputs/quickstart
  duet table methods --run                          # every method at three budgets on the small world
  duet table methods --rows scope,duet              # from outputs/methods
  duet table paired --results outputs/beyond/saliency --against cover    # differences with their intervals
"""


MINI, QUICKSTART = "mini", "outputs/quickstart"
METHODS, METHODS_RESULTS = "methods", "outputs/methods"
PAIRED = "paired"


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("number", metavar="N", help="1 to 15, as in the paper; mini, methods, paired: of a sweep")
    parser.add_argument("--format", default="markdown", metavar="FORMAT", help="markdown, latex, csv or json")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write it to this file (default: print)")
    parser.add_argument("--tokens", type=counts, metavar="A,B", help="only rows of these stated averages")
    chosen = "only rows of these methods, and the one with all tokens"
    parser.add_argument("--rows", type=names, metavar="A,B", help=chosen)
    found = parser.add_argument_group("results")
    found.add_argument(
        "--results", metavar="DIR", help="outputs of duet eval or duet sweep (default: where --plan writes)"
    )
    kept = "only results of this model (a pattern; may be repeated)"
    found.add_argument("--model", action="append", default=[], metavar="NAME", help=kept)
    full = "model of the row with all tokens, if it is another one"
    found.add_argument("--baseline", action="append", default=[], metavar="NAME", help=full)
    times = "folder of a training run, for Table 6 (may be repeated; default: where --plan trains, else --results)"
    found.add_argument("--training", action="append", default=[], type=Path, metavar="DIR", help=times)
    pairs = parser.add_argument_group("paired")
    what = "compare with this method under the same budget, or with one run (METHOD@BUDGET); default: the first method"
    pairs.add_argument("--against", metavar="METHOD", help=what)
    where = "compare with runs of this sweep; default method: the same one"
    pairs.add_argument("--versus", type=Path, metavar="DIR", help=where)
    pairs.add_argument("--by-task", action="store_true", help="differences of every task, too")
    plan = parser.add_argument_group("plan", "With --plan and --run, the commands use --results and --model.")
    todo = plan.add_mutually_exclusive_group()
    todo.add_argument("--plan", action="store_true", help="print the commands that fill the table")
    todo.add_argument("--run", action="store_true", help="run them; finished runs are not repeated")
    plan.add_argument("--data", default="./playground/data/eval", metavar="DIR", help="root of the benchmarks")
    plan.add_argument("--batch-size", type=positive, default=16, help="questions at a time (default: 16)")
    plan.add_argument("--processes", type=positive, default=1, help="devices to run on (default: 1)")
    plan.add_argument(
        "--recipe", metavar="FILE", help="training recipe for the models of Tables 3 and 6 (default: both stages)"
    )


def counts(text: str) -> list[int]:
    """Comma-separated whole numbers."""
    return [positive(part) for part in text.split(",")]


def names(text: str) -> list[str]:
    """Comma-separated methods."""
    found = method_names(text)
    if not all(found):
        raise ArgumentTypeError(f"{text!r}: a name between commas is empty")
    return found


def run(args: Namespace) -> int:
    """Print the table or the plan; returns the exit code.

    Raises:
        UserError: unknown table or format, or results that contradict each other.
    """
    from duet.report.paper import read_table
    from duet.report.plan import run_commands
    from duet.report.render import FORMATS

    if args.format not in FORMATS:
        raise UserError(f"unknown format {args.format!r}; choose {', '.join(FORMATS)}")
    if args.out is not None:
        check_output_file(check_output_folder(args.out.parent) / args.out.name)
    if args.number == MINI:
        return _write(_sweep_table(args), args)
    if args.number != PAIRED and (args.against or args.versus or args.by_task):
        raise UserError(f"--against, --versus and --by-task are for table {PAIRED}")
    if args.number == METHODS:
        return _methods(args)
    if args.number == PAIRED:
        return _paired(args)
    if not (args.number.isascii() and args.number.isdecimal()):
        raise UserError(f"{args.number!r} is not a table; choose 1 to 15, {MINI}, {METHODS} or {PAIRED}")
    table = read_table(int(args.number))
    if args.tokens or args.rows:
        table = table.only(args.tokens or (), args.rows or ())
    if args.plan or args.run:
        lines = _plan(table, args)
        if args.plan:
            say("\n".join(lines))
            return 0
        run_commands(lines)
    return _write(_filled(table, args), args)


def _write(table: Table, args: Namespace) -> int:
    from duet.report.render import render

    text = render(table, args.format)
    if args.out is None:
        say(text.rstrip("\n"))
    else:
        args.out.write_text(text, encoding="utf-8")
    return 0


def _sweep_table(args: Namespace) -> Table:
    from duet.report.experiment import read_grid, read_results
    from duet.report.tables import grid_table

    if args.plan or args.run or args.tokens or args.rows:
        raise UserError(f"table {MINI} is filled by: bash scripts/quickstart.sh")
    grid = read_grid(Path(args.results or QUICKSTART))
    return grid_table(grid, read_results(grid))


def _methods(args: Namespace) -> int:
    from duet.report.method_comparison import commands, methods_table
    from duet.report.plan import run_commands

    if args.tokens or args.model or args.baseline or args.recipe:
        raise UserError(f"table {METHODS} takes only --results, --rows, --plan and --run; the rest is in its grid")
    folder = args.results or METHODS_RESULTS
    if args.plan or args.run:
        lines = commands(folder)
        if args.plan:
            say("\n".join(lines))
            return 0
        run_commands(lines)
    return _write(methods_table(Path(folder), args.rows or ()), args)


def _paired(args: Namespace) -> int:
    from duet.report.paired import paired_table

    if args.results is None:
        raise UserError(f"table {PAIRED} needs --results, the output folder of a `duet sweep`")
    if args.tokens or args.model or args.baseline or args.plan or args.run or args.recipe:
        raise UserError(f"table {PAIRED} takes only --results, --rows, --against, --versus and --by-task")
    return _write(paired_table(Path(args.results), args.against, args.versus, args.rows or (), args.by_task), args)


def _plan(table: PaperTable, args: Namespace) -> list[str]:
    from duet.report.plan import Plan, commands

    if len(args.model) > 1:
        raise UserError(f"--plan and --run take one model; {', '.join(args.model)} are {len(args.model)}")
    model = args.model[0] if args.model else None
    return list(commands(table, Plan(args.results, args.data, model, args.recipe, args.batch_size, args.processes)))


def _filled(table: PaperTable, args: Namespace) -> Table:
    from duet.report.comparison import compare
    from duet.report.plan import results_folder, trained_folders
    from duet.report.runs import find_runs
    from duet.report.splits import split_table
    from duet.report.training import find_trainings

    if table.budgets:
        return split_table(table)
    folder = Path(args.results or results_folder(table))
    trainings = [found for place in args.training or trained_folders(table) for found in find_trainings(place)]
    if args.results is None and not folder.is_dir():
        return compare(table, [], trainings)
    compressed = [run for run in find_runs(folder, args.model) if run.method != "none"]
    full = [run for run in find_runs(folder, args.baseline or args.model) if run.method == "none"]
    return compare(table, [*full, *compressed], trainings or find_trainings(folder))
