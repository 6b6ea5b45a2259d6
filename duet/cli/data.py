"""`duet data`: the files of benchmarks and trainings, where they come from, and what is in them."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from duet.cli import data_preview, data_training, fetch
from duet.cli.output import say, say_json
from duet.cli.values import positive

if TYPE_CHECKING:
    from duet.eval.files.check import Report

SUMMARY = "show and check the files of benchmarks, and the rows of trainings"
EXAMPLES = """examples:
  duet data layout pope
  duet data fetch pope textvqa --data ./playground/data/eval
  duet data fetch mini
  duet data check pope --data ./playground/data/eval
  duet data check gqa --data ./playground/data/mini/eval --unofficial
  duet data layout llava665k
  duet data preview rows.json --model llava-hf/llava-1.5-7b-hf --version v1 --json ids.json
  duet data check-training configs/train/mini_finetune.yaml --gpus 8 --tflops 350 --histogram lengths.png

exit codes of check: 0 complete, as in the official release; 3 missing, unreadable or different files; 2 unusable
exit codes of fetch: 0 all is there; 3 some files have to be put in place by hand
"""
ROOT = "./playground/data/eval"
TRAINING = "./playground/data"
GOOD, INCOMPLETE = 0, 3
#: Printed lines of a long list of problems.
SHOWN = 10


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    layout = actions.add_parser("layout", help="print the expected files, their counts, sizes and sources")
    layout.add_argument(
        "tasks", nargs="*", metavar="TASK", help="benchmarks or training data (default: all benchmarks)"
    )
    checker = actions.add_parser("check", help="verify files, row counts, known hashes and every picture")
    checker.add_argument("tasks", nargs="+", metavar="TASK", help="benchmarks")
    checker.add_argument(
        "--unofficial", action="store_true", help="your own data: do not compare with the official release"
    )
    checker.add_argument("--json", action="store_true", help="print JSON, with the complete list of problems")
    fetcher = actions.add_parser("fetch", help="download what can be downloaded; the rest is named with its place")
    fetcher.add_argument("tasks", nargs="+", metavar="TASK", help="benchmarks, or mini: the small world's questions")
    fetcher.add_argument("--count", type=positive, help=f"mini: questions per benchmark (default: {fetch.COUNT})")
    fetcher.add_argument("--dry-run", action="store_true", help="only say what would be fetched")
    data_preview.add_arguments(actions)
    data_training.add_arguments(actions)
    for action in (layout, checker, fetcher):
        action.add_argument("--data", default=ROOT, metavar="DIR", help=f"folder of all benchmarks (default: {ROOT})")


def run(args: Namespace) -> int:
    """Print the layout or the report; returns the exit code.

    Raises:
        UserError: unknown benchmark, or unusable question files.
    """
    if args.action == "fetch":
        return fetch.run(args)
    if args.action == "preview":
        return data_preview.run(args)
    if args.action == "check-training":
        return data_training.run(args)
    from duet.eval.benchmarks import BENCHMARKS
    from duet.eval.files.check import check
    from duet.eval.files.layout import layout_of, tree

    if args.action == "layout":
        from duet.data.mixtures import mixtures, show

        for task in args.tasks:
            if task in mixtures():
                say(show(task, TRAINING if args.data == ROOT else args.data))
        tasks = [task for task in args.tasks if task not in mixtures()]
        if tasks or not args.tasks:
            say(tree([layout_of(task) for task in tasks or BENCHMARKS], args.data))
        if not args.tasks:
            say(f"training data: duet data layout {' | '.join(mixtures())}")
        return GOOD
    reports = []
    for task in args.tasks:
        reports.append(check(task, Path(args.data), official=not args.unofficial, shown=not args.json))
        if not args.json:
            say("\n".join(_lines(reports[-1])))
    if args.json:
        say_json([{**asdict(report), "folder": str(report.folder)} for report in reports])
    return GOOD if all(report.good for report in reports) else INCOMPLETE


def _lines(report: Report) -> list[str]:
    state = "complete" if report.good else f"{len(report.problems)} problems, {len(report.differences)} differences"
    named = ", ".join(
        f"{count} {what}" for what, count in (("pictures", report.pictures), ("videos", report.videos)) if count
    )
    lines = [f"{report.task} in {report.folder}: {report.questions} questions on {named or 'nothing'}: {state}"]
    for title, found in (("problem", report.problems), ("differs", report.differences)):
        lines += [f"  {title}: {text}" for text in found[:SHOWN]]
        if len(found) > SHOWN:
            lines.append(f"  ... and {len(found) - SHOWN} more ({title}); --json lists them")
    return lines
