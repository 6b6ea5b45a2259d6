"""`duet plot`: the paper's figures, drawn from results of `duet sweep`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from duet.cli.output import say
from duet.errors import UserError
from duet.extras import need
from duet.files import check_output_file, check_output_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUMMARY = "draw a figure of the paper from results, or the curves of training runs"
EXAMPLES = """examples:
  duet plot accuracy --results outputs/quickstart         # Figure 1: average % against tokens, a curve per method
  duet plot training-time --results runs                  # Figure 1 (b): time saved, from folders of duet.train.run
  duet plot cluster-width --results outputs/figure3       # Figure 3
  duet plot stages --results outputs/figure5 -o stages.pdf   # Figure 5: dropping schedules
  duet plot training runs/a runs/b -o curves.png          # losses, learning rates and accuracies of training runs
  duet plot k1 --results outputs/figure7 --task textvqa   # Figures 7 and 8: dominant against contextual tokens

configs/eval/figure*.yaml are the grids; `duet sweep` runs them.
"""
TASK = "textvqa"
TRAINING = "training"
KINDS = ("accuracy", "training-time", "cluster-width", "k1", "stages", TRAINING)
#: Figures without a benchmark axis.
ALONE = ("accuracy", "training-time", TRAINING)
FORMATS = (".png", ".pdf", ".svg")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("kind", choices=KINDS, metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="training: folders of duet train")
    parser.add_argument("--results", type=Path, metavar="DIR", help="output folder of duet sweep (all but training)")
    parser.add_argument("--task", help=f"benchmark of the vertical axis, if there is one (default: {TASK})")
    parser.add_argument("--model", action="append", default=[], metavar="NAME", help="only results of this model")
    parser.add_argument("--method", metavar="NAME", help="only results of this method")
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help="png, pdf or svg (default: DIR/KIND.png)")
    parser.add_argument("--format", choices=[name[1:] for name in FORMATS], help="of DIR/KIND, without --out")


def run(args: Namespace) -> int:
    """Draw and save; returns the exit code.

    Raises:
        UserError: no results for the figure, or a file of another kind.
    """
    need("duet plot", "plot", "matplotlib")
    place = _place(args)
    if args.out is not None and args.format is not None:
        raise UserError("--format has no effect with --out, whose ending says the format")
    out = args.out or place / f"{args.kind}.{args.format or 'png'}"
    if out.suffix not in FORMATS:
        raise UserError(f"{out}: a figure is written as {', '.join(FORMATS)}")
    if not place.is_dir():
        raise UserError(f"no such folder of results: {place}")
    check_output_file(check_output_folder(out.parent) / out.name)
    if args.task is not None and args.kind in ALONE:
        raise UserError(f"--task has no effect for {args.kind}; its values are averages")
    draw = {"accuracy": _accuracy, "training-time": _training_time, TRAINING: _training}.get(args.kind, _study)
    figure = draw(args)
    figure.savefig(out, dpi=160)
    say(str(out))
    return 0


def _place(args: Namespace) -> Path:
    """The folder with what is drawn; of training runs the first.

    Raises:
        UserError: none, or the wrong kind of folders.
    """
    if args.kind == TRAINING:
        if not args.runs or args.results is not None:
            raise UserError("duet plot training RUN ...: name folders of duet train (--results has no effect)")
        return args.runs[0]
    if args.results is None or args.runs:
        raise UserError(f"duet plot {args.kind} --results DIR: name the output folder of duet sweep")
    return args.results


def _training(args: Namespace) -> Figure:
    from duet.report.curves import draw_training, read_curves

    if args.model or args.method:
        raise UserError("training runs are named by their folders: --model and --method have no effect")
    return draw_training([read_curves(folder) for folder in args.runs])


def _accuracy(args: Namespace) -> Figure:
    from duet.report.experiment import choose, read_grid, read_results
    from duet.report.plots import draw_accuracy

    grid = read_grid(args.results)
    return draw_accuracy(choose(read_results(grid), args.model, args.method), next(iter(grid.models)))


def _training_time(args: Namespace) -> Figure:
    from duet.report.figures import training_time
    from duet.report.training import find_trainings

    if args.model:
        raise UserError("training runs are distinguished by their folders: --model has no effect here, give --results")
    return training_time(find_trainings(args.results), args.method)


def _study(args: Namespace) -> Figure:
    from duet.eval.benchmarks import get
    from duet.method_table import find_method
    from duet.report import figures
    from duet.report.runs import find_runs

    runs = find_runs(args.results, args.model)
    if args.method is not None:
        method = find_method(args.method).name
        runs = [run for run in runs if run.method in ("none", method)]
    draw = {"cluster-width": figures.cluster_width, "k1": figures.dominant, "stages": figures.schedules}[args.kind]
    return draw(runs, get(args.task or TASK).name)
