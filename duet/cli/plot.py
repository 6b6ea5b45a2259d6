"""`duet plot`: the paper's figures, drawn from results of `duet sweep`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from duet.cli.output import say
from duet.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUMMARY = "draw a figure of the paper from results: accuracy, training-time, cluster-width, k1, stages"
EXAMPLES = """examples:
  duet plot accuracy --results outputs/quickstart           Figure 1: average % against tokens, a curve per method
  duet plot training-time --results runs                    Figure 1 (b): time saved, from folders of duet.train.run
  duet plot cluster-width --results outputs/figure3         Figure 3
  duet plot stages --results outputs/figure5 -o stages.pdf  Figure 5: dropping schedules
  duet plot k1 --results outputs/figure7 --task textvqa     Figures 7 and 8: dominant against contextual tokens

configs/eval/figure*.yaml are the grids; `duet sweep` runs them.
"""
KINDS = ("accuracy", "training-time", "cluster-width", "k1", "stages")
FORMATS = (".png", ".pdf", ".svg")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("kind", choices=KINDS, metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--results", required=True, type=Path, metavar="DIR", help="output folder of duet sweep")
    parser.add_argument("--task", default="textvqa", help="benchmark of the vertical axis (default: textvqa)")
    parser.add_argument("--model", action="append", default=[], metavar="NAME", help="only results of this model")
    parser.add_argument("--method", metavar="NAME", help="only results of this method")
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help="png, pdf or svg (default: DIR/KIND.png)")


def run(args: Namespace) -> int:
    """Draw and save; returns the exit code.

    Raises:
        UserError: no results that make the figure, or a file of another kind.
    """
    out = args.out or args.results / f"{args.kind}.png"
    if out.suffix not in FORMATS:
        raise UserError(f"{out}: a figure is written as {', '.join(FORMATS)}")
    drawn_alone = {"accuracy": _accuracy, "training-time": _training_time}
    figure = drawn_alone[args.kind](args.results) if args.kind in drawn_alone else _study(args)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=160)
    say(str(out))
    return 0


def _accuracy(folder: Path) -> Figure:
    from duet.report.experiment import read_grid, read_results
    from duet.report.plots import draw_accuracy

    return draw_accuracy(read_results(read_grid(folder)))


def _training_time(folder: Path) -> Figure:
    from duet.report.figures import training_time
    from duet.report.training import find_trainings

    return training_time(find_trainings(folder))


def _study(args: Namespace) -> Figure:
    from duet.eval.benchmarks import get
    from duet.registry import find_method
    from duet.report import figures
    from duet.report.runs import find_runs

    runs = find_runs(args.results, args.model)
    if args.method is not None:
        method = find_method(args.method)[0]
        runs = [run for run in runs if run.method in ("none", method)]
    draw = {"cluster-width": figures.cluster_width, "k1": figures.dominant, "stages": figures.schedules}[args.kind]
    return draw(runs, get(args.task).name)
