"""`rows.jsonl`: every question of a task with the decision on its answer, so intervals need no benchmark files.

    {"key": "6:7", "question": "Is there a dog ...", "parsed": "yes", "gold": "no", "correct": false, "score": 0.0,
     "id": "7", "group": "random", "media": ["pope/val2014/COCO_val2014_000000310196.jpg"], "failed": null}

`parsed` is null without an answer; `failed` says why a question could not be asked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from duet.eval.reading import name_of, number_of, read_lines, text_of, texts_of
from duet.eval.running.answer_files import replace_file
from duet.eval.scoring.benchmark import decision
from duet.eval.types import Decided, InputError, Prediction, Sample

FILE = "rows.jsonl"


def write_decisions(folder: Path, decided: Sequence[Decided], failed: Mapping[str, str]) -> None:
    """Write the file of a task's folder; `failed` is key -> reason of questions that could not be asked."""
    replace_file(folder / FILE, "".join(json.dumps(_line(row, failed), ensure_ascii=False) + "\n" for row in decided))


def read_decisions(folder: Path) -> list[Decided]:
    """The decisions of a task's folder, in official order.

    Raises:
        InputError: the file is missing, or a line is not in the format of `write_decisions`.
    """
    path = folder / FILE
    return [_row(row, f"{path}:{number}") for number, row in read_lines(path)]


def _line(row: Decided, failed: Mapping[str, str]) -> dict[str, Any]:
    sample = row.sample
    media = [*sample.images, *([] if sample.video is None else [sample.video])]
    about = {"id": sample.id, "group": row.group, "media": media}
    return {**decision(row), **about, "failed": failed.get(sample.key)}


def _row(row: dict[str, Any], where: str) -> Decided:
    if "media" not in row:
        raise InputError(
            f"{where}: field 'media' is missing; run `duet eval` or `duet sweep` again to rewrite the file"
        )
    media = texts_of(row, "media", where) if row["media"] else []
    key, group = name_of(row, "key", where), text_of(row, "group", where, blank=True)
    question, gold = text_of(row, "question", where, blank=True), row.get("gold")
    if not isinstance(gold, str):
        gold = texts_of(row, "gold", where)
    sample = Sample(name_of(row, "id", where), key, question, tuple(media), answer=gold, group=group)
    parsed = None if row.get("parsed") is None else text_of(row, "parsed", where, blank=True)
    prediction = None if parsed is None else Prediction("", 0, sample.id)
    return Decided(sample, prediction, parsed, number_of(row, "score", where), group)
