"""Reads LLaVA conversation files (`[{"id", "image", "conversations": [{"from", "value"}]}]`, JSON or JSON lines).

Every row is checked when the file is read, not hours later in training: alternating speakers, as many `<image>`
placeholders as pictures, non-empty answers. An error names the file, the row and its id.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from duet.errors import UserError
from duet.files import read_json, read_json_lines

IMAGE = "<image>"
#: Keys of other formats that this reader does not support; without them such a row would be trained as text alone.
FOREIGN = ("video", "videos", "images", "audio", "audios", "messages")
SPEAKERS = {"human": "question", "user": "question", "gpt": "answer", "assistant": "answer"}


class DataError(UserError):
    """A data file or row that is unusable for training; the message says which and why."""


@dataclass(frozen=True)
class Row:
    """One conversation: picture files relative to the image folder, and (question, answer) turns.

    `extra` keeps the record's other keys, for example the `task` by which accuracy is reported.
    """

    name: str
    images: tuple[str, ...]
    turns: tuple[tuple[str, str], ...]
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def characters(self) -> int:
        """Length of the whole text, a cheap estimate of the number of tokens."""
        return sum(len(question) + len(answer) for question, answer in self.turns)


def read_rows(paths: str | Path | Sequence[str | Path]) -> list[Row]:
    """All rows of one or several files, in order."""
    files = [paths] if isinstance(paths, (str, Path)) else list(paths)
    rows = [parse_row(record, f"{file}, row {place}") for file in files for place, record in enumerate(_records(file))]
    if not rows:
        raise DataError(f"no rows in {', '.join(map(str, files))}")
    return rows


def parse_row(record: Any, where: str) -> Row:
    """Check one record and turn it into a `Row`; `where` begins every error message."""
    if not isinstance(record, dict) or not isinstance(record.get("conversations"), list):
        raise DataError(f"{where}: expected an object with a list 'conversations'")
    where = f"{where} (id {str(record.get('id'))[:80]!r})"
    for key in FOREIGN:
        if record.get(key):
            raise DataError(f"{where}: has {key!r}, which is not supported: rows have 'image' and 'conversations'")
    images = _images(record.get("image"), where)
    if not isinstance(record.get("task", ""), str):
        raise DataError(f"{where}: 'task' is {str(record['task'])[:80]!r}; expected the name of a task")
    turns = tuple(_turns(record["conversations"], where))
    placeholders = sum(question.count(IMAGE) for question, _ in turns)
    if any(IMAGE in answer for _, answer in turns):
        raise DataError(f"{where}: an answer contains {IMAGE}; placeholders belong in questions")
    if placeholders != len(images):
        raise DataError(f"{where}: {len(images)} picture(s) but {placeholders} {IMAGE} placeholder(s)")
    extra = {key: value for key, value in record.items() if key not in ("id", "image", "conversations")}
    return Row(str(record.get("id", "")), images, turns, extra)


def _images(given: Any, where: str) -> tuple[str, ...]:
    names = [given] if isinstance(given, str) else [] if given is None else given
    if not isinstance(names, list) or not all(isinstance(name, str) and name and "\0" not in name for name in names):
        raise DataError(f"{where}: 'image' is {str(given)[:80]!r}; expected the name of a file or a list of such")
    return tuple(names)


def _turns(conversation: list[Any], where: str) -> Iterator[tuple[str, str]]:
    if not conversation or len(conversation) % 2:
        raise DataError(f"{where}: {len(conversation)} messages; expected pairs of a question and an answer")
    for place, message in enumerate(conversation):
        role = SPEAKERS.get(str(message.get("from"))) if isinstance(message, dict) else None
        expected = ("question", "answer")[place % 2]
        if role != expected or not isinstance(message.get("value"), str):
            raise DataError(f"{where}: message {place} must be a {expected} ('from': human or gpt, 'value': text)")
        if role == "answer" and not message["value"].strip():
            raise DataError(f"{where}: message {place}: empty answer")
    for question, answer in zip(conversation[::2], conversation[1::2], strict=True):
        yield question["value"], answer["value"]


def _records(path: str | Path) -> list[Any]:
    if Path(path).suffix == ".jsonl":
        return [record for _, record in read_json_lines(path, DataError, "data file")]
    records = read_json(path, DataError, "data file")
    if not isinstance(records, list):
        raise DataError(f"{path}: expected a list of rows, got a {type(records).__name__}")
    return records
