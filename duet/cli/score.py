"""Scores a prediction file: `duet score TASK --data DIR --predictions FILE [--json OUT] [--per-row FILE]`.

    duet score pope --data playground/data/eval --predictions merge.jsonl --json pope.json

Exit code 0 for a complete score, 3 for a partial one (printed and marked), 2 for unusable input.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from duet.cli.output import say
from duet.eval.benchmarks import ALIASES, BENCHMARKS, SUFFIXES, get
from duet.eval.scoring.predictions import read_predictions
from duet.eval.types import InputError, Score
from duet.files import check_output_file, check_output_folder

SUMMARY = "score a prediction file as the official scorer does"
EXAMPLES = """examples:
  duet score pope --data ./playground/data/eval --predictions merge.jsonl
  duet score mine.jsonl --predictions outputs/mine/mine/predictions.jsonl
  duet score mme --data ./playground/data/eval/MME --predictions answers.jsonl --json mme.json --per-row rows.jsonl

exit codes: 0 complete score, 3 partial score (unanswered questions), 2 unusable input
"""
COMPLETE, PARTIAL = 0, 3
PLACE = "folder of all benchmarks, or this benchmark's own; a question file needs none"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    known = f"one of {', '.join(BENCHMARKS)} (also {', '.join(ALIASES)}), or a question file (.jsonl)"
    parser.add_argument("task", metavar="TASK", help=known)
    parser.add_argument("--data", type=Path, metavar="DIR", help=PLACE)
    origin = "answers of LLaVA (merge.jsonl) or Video-LLaVA, or samples of lmms-eval"
    parser.add_argument("--predictions", required=True, type=Path, metavar="FILE", help=origin)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the score with full precision")
    parser.add_argument("--per-row", type=Path, metavar="FILE", help="write parsed answer and decision of every row")
    parser.add_argument("--official", action="store_true", help="reproduce the official scorer, including its errors")


def run(args: argparse.Namespace) -> int:
    """Score, print, write; the exit code.

    Raises:
        InputError: unusable input, or an unwritable result.
    """
    for out in (args.json, args.per_row):
        if out is not None:
            check_output_file(check_output_folder(out.parent, InputError) / out.name, InputError)
    score = get(args.task).score(place_of(args), read_predictions(args.predictions), official=args.official)
    if args.json:
        write(args.json, json.dumps(as_json(score), indent=2) + "\n")
    if args.per_row:
        write(args.per_row, "".join(json.dumps(row) + "\n" for row in score.rows))
    say("\n".join(as_text(score)))
    return COMPLETE if score.complete else PARTIAL


def place_of(args: argparse.Namespace) -> Path:
    """The folder of the data.

    Raises:
        InputError: a benchmark without it, or a question file with it.
    """
    own = args.task.endswith(SUFFIXES)
    if own and args.data is not None:
        raise InputError(f"--data does nothing: {args.task} names its own pictures")
    if not own and args.data is None:
        raise InputError(f"--data is missing: the folder of all benchmarks, or that of {args.task}")
    return Path() if own else args.data


def as_json(score: Score) -> dict[str, Any]:
    """The score in the form that is saved."""
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
        "official_rule": score.rule,
        "notes": list(score.summary.notes),
    }


def as_text(score: Score) -> Iterable[str]:
    """The score in the form that is printed."""
    counts = score.counts
    yield f"{score.task} {score.summary.headline} {score.headline:.2f}{'' if score.complete else '  PARTIAL'}"
    if not score.complete:
        yield f"  {counts.missing} of {counts.rows} questions have no answer and count as wrong"
        if score.answered is not None:
            yield f"  over the {counts.scored} answered ones only: {score.answered:.2f}"
    width = max(map(len, score.summary.metrics))
    yield from (f"  {name:<{width}} {value:10.4f}" for name, value in score.summary.metrics.items())
    yield "  " + ", ".join(f"{name} {number}" for name, number in asdict(counts).items())
    if counts.duplicate:
        yield f"  note: {counts.duplicate} predictions repeat a question; the last one counts"
    if counts.unknown:
        yield f"  note: {counts.unknown} predictions belong to no question of this benchmark (--per-row lists them)"
    yield from (f"  note: {note}" for note in score.summary.notes)
    there = "the official scorer" if score.mode == "default" else "without --official, this command"
    if isinstance(score.other, str):
        yield f"  note: {there} stops on this input: {score.other}"
    elif abs(score.other - score.headline) > 1e-9:
        yield f"  note: {there} gives {score.other:.4f}, because the official rule differs: {score.rule}"


def write(path: Path, text: str) -> None:
    """Write a result file, creating its folder.

    Raises:
        InputError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None
