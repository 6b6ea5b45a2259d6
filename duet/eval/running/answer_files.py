"""The answers of one task on disk: appended line by line, found again after an interruption, merged at the end.

    predictions.jsonl         {"question_id": 7, "prompt": "...", "text": "Yes", "key": "6:7", "kept": [53, 26, 0]}
    predictions.rank1.jsonl   what the second of several processes has appended; merged away at the end
    timing.jsonl              {"batch": 0, "rows": 32, "prefill_ms": 181.2, "decode_ms": 40.8, "steps": 3}

A line is LLaVA's answer line and some fields more, so `duet score` reads the file at any time. Times lie in a file of
their own: predictions are equal, byte by byte, however often the run was killed and by however many processes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

Line = dict[str, Any]


class AnswerFiles:
    """The files of one task, as one process sees them.

    Args:
        folder: of the task; made if it is not there.
        process: number of this process. The first one appends to `predictions.jsonl` itself.
    """

    def __init__(self, folder: Path, process: int = 0) -> None:
        self.folder = folder
        self.process = process
        folder.mkdir(parents=True, exist_ok=True)
        for stem in ("predictions", "timing"):
            _drop_torn_line(self._own(stem))

    def done(self) -> dict[str, Line]:
        """Answers that are on disk, by key, of all processes of earlier runs."""
        return {line["key"]: line for line in self._read("predictions")}

    def append(self, answers: Sequence[Line], timing: Line) -> None:
        """Add the answers of a batch; they survive a kill from here on."""
        _append(self._own("timing"), [timing])
        _append(self._own("predictions"), answers)

    def timings(self) -> list[Line]:
        """Times of the batches, each batch once."""
        return list({line["batch"]: line for line in self._read("timing")}.values())

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

    def _read(self, stem: str) -> Iterator[Line]:
        for path in sorted(self.folder.glob(f"{stem}*.jsonl")):
            yield from read_whole_lines(path)


def read_whole_lines(path: Path) -> Iterator[Line]:
    """The objects of all lines; a last line without its end, which a kill may leave, is not there yet."""
    if not path.exists():
        return
    *lines, _torn = path.read_text(encoding="utf-8").split("\n")
    yield from (json.loads(line) for line in lines)


def replace_file(path: Path, text: str) -> None:
    """Write a file so that at any moment either its old or its new content is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(text, encoding="utf-8")
    os.replace(fresh, path)


def _append(path: Path, lines: Sequence[Line]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(_text(lines))


def _text(lines: Sequence[Line]) -> str:
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def _drop_torn_line(path: Path) -> None:
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
