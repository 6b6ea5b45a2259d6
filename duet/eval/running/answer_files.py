"""The answers of one task on disk: appended line by line, found again after an interruption, merged at the end.

    predictions.jsonl         {"question_id": 7, "prompt": "...", "text": "Yes", "key": "6:7", "kept": [53, 26, 0]}
    predictions.rank1.jsonl   appended by the second of several processes; merged at the end
    timing.jsonl              {"batch": 0, "rows": 32, "prefill_ms": 181.2, "decode_ms": 40.8, "steps": 3}

A line is LLaVA's answer line with some extra fields, so `duet score` reads the file at any time. Times are in another
file: predictions are equal, byte by byte, for any number of interruptions and processes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from duet.errors import UserError
from duet.eval.reading import parse_line, shown
from duet.eval.types import InputError

Line = dict[str, Any]
DELETE = "delete the line, and its question is asked again"
#: Fields of timing.jsonl.
TIMES: dict[str, Any] = {"batch": int, "rows": int, "prefill_ms": (int, float), "decode_ms": (int, float), "steps": int}
#: Limit for a number, far above any count or time.
MOST = 1e15


class AnswerFiles:
    """The files of one task, as one process sees them.

    Args:
        folder: of the task; created if missing.
        process: number of this process. The first one appends to `predictions.jsonl` itself.
        fields: further texts that every answer has, such as the one of the answer itself.
        boundaries: places at which the visual tokens of an answer were counted; None: any number.

    Raises:
        UserError: the folder cannot be written to.
    """

    def __init__(
        self, folder: Path, process: int = 0, fields: Sequence[str] = (), boundaries: int | None = None
    ) -> None:
        self.folder = folder
        self.process = process
        self.fields = ("key", *fields)
        self.boundaries = boundaries
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for stem in ("predictions", "timing"):
                _drop_torn_line(self._own(stem))

    def done(self) -> dict[str, Line]:
        """Stored answers by key, of all processes of earlier runs.

        Raises:
            InputError: a line that is not an answer; the message names it.
        """
        found: dict[str, Line] = {}
        for where, line in self._read("predictions"):
            wrong = self._fault(line)
            if wrong:
                raise InputError(f"{where}: {wrong}; {DELETE}")
            found[line["key"]] = line
        return found

    def _fault(self, line: Line) -> str:
        """What is wrong with an answer; empty where nothing is."""
        for name in self.fields:
            if not isinstance(line.get(name), str):
                return f"{name} is {shown(line.get(name))}, expected a text"
        counts = line.get("kept", [])
        if not (isinstance(counts, list) and self.boundaries in (None, len(counts)) and all(map(_is_count, counts))):
            return f"kept is {shown(counts)}, expected {self.boundaries or 'some'} numbers"
        if not _is_count(line.get("visual", 0)):
            return f"visual is {shown(line['visual'])}, expected a number"
        return ""

    def append(self, answers: Sequence[Line], timing: Line) -> None:
        """Add the answers of a batch; they survive a kill from here on."""
        _append(self._own("timing"), [timing])
        _append(self._own("predictions"), answers)

    def timings(self) -> list[Line]:
        """Times of the batches, each batch once.

        Raises:
            InputError: a line that holds no times; the message names it.
        """
        found: dict[int, Line] = {}
        for where, line in self._read("timing"):
            for name, kind in TIMES.items():
                value = line.get(name)
                if isinstance(value, bool) or not isinstance(value, kind) or not 0 <= value < MOST:  # type: ignore[arg-type]
                    raise InputError(f"{where}: {name} is {shown(value)}, expected a number; delete the line")
            if not line["rows"]:
                raise InputError(f"{where}: rows is 0, expected a number of answers; delete the line")
            found[line["batch"]] = line
        return list(found.values())

    def merge(self, keys: Iterable[str]) -> list[Line]:
        """Put all answers into `predictions.jsonl` in the order of `keys`; only one process may call it, at the end."""
        done = self.done()
        answers = [done[key] for key in keys if key in done]
        replace_file(self.folder / "timing.jsonl", _text(self.timings()))
        replace_file(self.folder / "predictions.jsonl", _text(answers))
        for path in [*self.folder.glob("predictions.rank*.jsonl"), *self.folder.glob("timing.rank*.jsonl")]:
            path.unlink()
        return answers

    def _own(self, stem: str) -> Path:
        return self.folder / (f"{stem}.rank{self.process}.jsonl" if self.process else f"{stem}.jsonl")

    def _read(self, stem: str) -> Iterator[tuple[str, Line]]:
        for path in [self.folder / f"{stem}.jsonl", *sorted(self.folder.glob(f"{stem}.rank*.jsonl"))]:
            yield from read_whole_lines(path)


def read_whole_lines(path: Path) -> Iterator[tuple[str, Line]]:
    """Place and object of all lines; an unfinished last line, left by a killed run, is ignored.

    Raises:
        InputError: a line that is not a JSON object; the message names it.
    """
    try:
        content = path.read_bytes() if path.exists() else b""
        *lines, _torn = content.decode("utf-8").split("\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        broken = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}:{broken}: not UTF-8 text; {DELETE}") from None
    for number, text in enumerate(lines, start=1):
        try:
            yield f"{path}:{number}", parse_line(text, f"{path}:{number}")
        except InputError as error:
            raise InputError(f"{error}; {DELETE}") from None


def replace_file(path: Path, text: str) -> None:
    """Write a file atomically: it always has either its old or its new content.

    Raises:
        UserError: it cannot be written.
    """
    fresh = path.with_name(f"{path.name}.new")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            fresh.write_text(text, encoding="utf-8")
            os.replace(fresh, path)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Report a full or unwritable disk in one line; what was already written stays.

    Raises:
        UserError: naming the file.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({(error.strerror or str(error)).lower()})") from None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST


def _append(path: Path, lines: Sequence[Line]) -> None:
    with writing(path), path.open("a", encoding="utf-8") as file:
        file.write(_text(lines))


def _text(lines: Sequence[Line]) -> str:
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def _drop_torn_line(path: Path) -> None:
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
