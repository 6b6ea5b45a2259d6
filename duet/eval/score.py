"""Scores anybody's prediction file: `duet score TASK --data DIR --predictions FILE [--json OUT] [--per-row FILE]`.

    duet score pope --data playground/data/eval --predictions merge.jsonl --json pope.json

Exit code 0 for a complete score, 3 for a partial one (printed and marked), 2 for input that cannot be used.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from duet.eval.benchmarks import ALIASES, BENCHMARKS, get
from duet.eval.predictions import read_predictions
from duet.eval.types import InputError, Score

COMPLETE, UNUSABLE, PARTIAL = 0, 2, 3
EPILOG = """examples:
  duet score pope --data ./playground/data/eval --predictions merge.jsonl
  duet score mme --data ./playground/data/eval/MME --predictions answers.jsonl --json mme.json --per-row rows.jsonl

exit codes: 0 complete score, 3 partial score (questions without answer), 2 input that cannot be used"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument("task", metavar="TASK", help=f"one of {', '.join(BENCHMARKS)} (also {', '.join(ALIASES)})")
    parser.add_argument("--data", required=True, type=Path, metavar="DIR",
                        help="folder of all benchmarks, or this benchmark's own")  # fmt: skip
    parser.add_argument("--predictions", required=True, type=Path, metavar="FILE",
                        help="answers of LLaVA (merge.jsonl) or Video-LLaVA, or samples of lmms-eval")  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the score with full precision")
    parser.add_argument("--per-row", type=Path, metavar="FILE", help="write parsed answer and decision of every row")
    parser.add_argument("--official", action="store_true", help="reproduce the official scorer, its errors included")


def run(args: argparse.Namespace) -> int:
    """Score, print, write; the exit code."""
    try:
        score = get(args.task).score(args.data, read_predictions(args.predictions), official=args.official)
        if args.json:
            write(args.json, json.dumps(as_json(score), indent=2) + "\n")
        if args.per_row:
            write(args.per_row, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in score.rows))
    except InputError as error:
        sys.stderr.write(f"duet score: {error}\n")
        return UNUSABLE
    sys.stdout.write("\n".join(as_text(score)) + "\n")
    return COMPLETE if score.complete else PARTIAL


def as_json(score: Score) -> dict[str, Any]:
    """The score as it is saved."""
    return {
        "task": score.task,
        "version": score.version,
        "mode": score.mode,
        "complete": score.complete,
        "headline": {"name": score.summary.headline, "value": score.headline},
        "metrics": score.summary.metrics,
        "counts": asdict(score.counts),
        "tallies": score.summary.tallies,
        "answered_only": score.answered,
        "other_mode": score.other,
        "notes": list(score.summary.notes),
    }


def as_text(score: Score) -> Iterable[str]:
    """The score as it is printed."""
    counts = score.counts
    yield f"{score.task} {score.summary.headline} {score.headline:.2f}{'' if score.complete else '  PARTIAL'}"
    if not score.complete:
        yield f"  {counts.missing} of {counts.rows} questions have no answer and count as wrong"
        if score.answered is not None:
            yield f"  over the {counts.scored} answered ones alone: {score.answered:.2f}"
    width = max(map(len, score.summary.metrics))
    yield from (f"  {name:<{width}} {value:10.4f}" for name, value in score.summary.metrics.items())
    yield "  " + ", ".join(f"{name} {number}" for name, number in asdict(counts).items())
    yield from (f"  note: {note}" for note in score.summary.notes)
    if isinstance(score.other, str):
        yield f"  note: the official scorer stops on this input: {score.other}"
    elif abs(score.other - score.headline) > 1e-9:
        there = "the official scorer" if score.mode == "default" else "without --official, this command"
        yield f"  note: {there} gives {score.other:.4f}"


def write(path: Path, text: str) -> None:
    """Write a result file, its folder included.

    Raises:
        InputError: the place cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None
