"""`duet data preview`: what training makes of every row of a file."""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from duet.cli.output import say
from duet.cli.values import positive
from duet.files import check_output_file

if TYPE_CHECKING:
    from duet.data.preview import Preview, Previewer

GREEN, PLAIN = "\033[32m", "\033[0m"
#: Around a learned part where there are no colours.
OPEN, CLOSE = "{+", "+}"


def add_arguments(actions: Any) -> None:
    """Declare `preview` among the actions of `duet data`."""
    parser = actions.add_parser("preview", help="show what training makes of the rows of a file: ids and labels")
    parser.add_argument("file", metavar="FILE", help="conversations as JSON, JSON lines or parquet")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", metavar="DIR", help="checkpoint folder or hub id")
    source.add_argument("--tokenizer", metavar="DIR", help="folder or hub id of a tokenizer alone")
    parser.add_argument(
        "--version", metavar="NAME", help="prompt format: v1, plain, mistral_instruct, ... (default: the checkpoint's)"
    )
    parser.add_argument(
        "--tokenization",
        metavar="NAME",
        default="right",
        help="right (default), original (the code that the family was trained with), or a code by name: llava, "
        "video_llava, duet_video, qwen",
    )
    parser.add_argument(
        "--model-max-length", type=positive, metavar="N", help="longest example (default: the tokenizer's)"
    )
    parser.add_argument("--row", metavar="ID", help="the row to show (default: the first that is learned)")
    parser.add_argument("--json", metavar="OUT", help="write all rows to this file: ids and labels, or why left out")


def run(args: Namespace) -> int:
    """Write the rows and show one; returns the exit code.

    Raises:
        UserError: an unusable file, tokenizer, name or row.
    """
    from transformers.utils import logging

    from duet.data.preview import TOKENIZATIONS, Previewer
    from duet.errors import UserError, suggest

    if args.tokenization not in TOKENIZATIONS:
        raise UserError(f"--tokenization {args.tokenization}: {suggest(args.tokenization, TOKENIZATIONS)}")
    logging.set_verbosity_error()  # rows longer than the tokenizer's limit are cut, or left out by name
    if args.json:
        check_output_file(args.json)
    previewer = Previewer(
        args.model or args.tokenizer, args.version, args.tokenization, args.model_max_length, args.model is not None
    )
    rows = previewer.rows(args.file)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as out:
            json.dump([row.as_json() for row in rows], out, ensure_ascii=False)
            out.write("\n")
    shown = next((row for row in rows if (str(row.row) == args.row if args.row else row.learned)), None)
    if args.row and shown is None:
        raise UserError(f"{args.file} has no row {args.row!r}")
    if shown is not None:
        say(drawn(shown, previewer))
    left = [row for row in rows if row.left_out is not None]
    silent = [row for row in rows if row.left_out is None and not row.learned]
    say(f"{args.file}: {len(rows)} rows, {len(left)} left out, {len(silent)} without a label")
    for row in [*left, *silent][:5]:
        say(f"  {row.row}: {row.left_out or row.warning or 'nothing is learned'}")
    return 0


def drawn(row: Preview, previewer: Previewer) -> str:
    """A row as text, its learned parts coloured (in brackets where there are no colours)."""
    if row.input_ids is None or row.labels is None:
        return f"{row.row}: left out: {row.left_out}"
    from duet.data.collate import IGNORED

    start, end = (GREEN, PLAIN) if sys.__stdout__ is not None and _has_colours() else (OPEN, CLOSE)
    pieces, at = [], 0
    marks = [label != IGNORED for label in row.labels]
    for place in range(1, len(marks) + 1):
        if place == len(marks) or marks[place] != marks[at]:
            text = previewer.text(row.input_ids[at:place])
            pieces.append(f"{start}{text}{end}" if marks[at] else text)
            at = place
    return f"{row.row} ({len(marks)} ids, {sum(marks)} learned):\n{''.join(pieces)}"


def _has_colours() -> bool:
    return sys.__stdout__ is not None and sys.__stdout__.isatty() and not os.environ.get("NO_COLOR")
