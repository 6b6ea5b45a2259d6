"""`rows.jsonl`: every question of a task with the decision on its answer, so that intervals need no benchmark files.

    {"key": "6:7", "question": "Is there a dog ...", "parsed": "yes", "gold": "no", "correct": false, "score": 0.0,
     "id": "7", "group": "random", "media": ["pope/val2014/COCO_val2014_000000310196.jpg"], "failed": null}

`parsed` is null where there is no answer; `failed` says why a question could not be asked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from duet.eval.reading import read_lines
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
        InputError: the file is not there, or a line is not what `write_decisions` writes.
    """
    path = folder / FILE
    return [_row(row, f"{path}:{number}") for number, row in read_lines(path)]


def _line(row: Decided, failed: Mapping[str, str]) -> dict[str, Any]:
    sample = row.sample
    media = [*sample.images, *([] if sample.video is None else [sample.video])]
    about = {"id": sample.id, "group": row.group, "media": media}
    return {**decision(row), **about, "failed": failed.get(sample.key)}


def _row(row: dict[str, Any], where: str) -> Decided:
    fields = {"key": str, "id": str, "question": str, "group": str, "media": list, "score": (int, float)}
    for name, kind in fields.items():
        if name not in row:
            raise InputError(f"{where}: field {name!r} is missing; `duet eval` or `duet sweep` again writes it anew")
        if not isinstance(row[name], kind) or isinstance(row[name], bool):  # type: ignore[arg-type]
            raise InputError(f"{where}: {name} is {row[name]!r}; was the file changed?")
    if not all(isinstance(name, str) for name in row["media"]):
        raise InputError(f"{where}: media {row['media']!r} are no names of files")
    sample = Sample(
        row["id"], row["key"], row["question"], tuple(row["media"]), answer=row.get("gold"), group=row["group"]
    )
    parsed = row.get("parsed")
    prediction = None if parsed is None else Prediction("", 0, sample.id)
    return Decided(sample, prediction, parsed, float(row["score"]), row["group"])
