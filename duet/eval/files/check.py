"""Checks the files of a benchmark before a long run: missing, truncated, unreadable, or another release.

Reads the questions as `duet eval` does, decodes every picture that they name, and compares numbers of rows and hashes
with the official release (`duet.eval.files.layout`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from duet.data.pictures import open_picture
from duet.data.rows import DataError
from duet.eval.benchmarks import get
from duet.eval.files.layout import Entry, layout_of
from duet.eval.progress import Progress
from duet.eval.reading import read_json, read_lines
from duet.eval.scoring.benchmark import FileBenchmark
from duet.eval.types import Sample

WORKERS = 8


@dataclass(frozen=True)
class Report:
    """What was found.

    Attributes:
        task, folder: the benchmark and its folder.
        questions: number asked; pictures, videos: number of different ones that they name.
        problems: what would fail in an evaluation: missing, empty or unreadable files.
        differences: from the official release; empty if not compared.
    """

    task: str
    folder: Path
    questions: int
    pictures: int
    videos: int
    problems: tuple[str, ...]
    differences: tuple[str, ...]

    @property
    def good(self) -> bool:
        """No problems and no differences."""
        return not self.problems and not self.differences


def check(task: str, root: Path, official: bool = True, shown: bool = False) -> Report:
    """Check one benchmark.

    Args:
        root: the folder of all benchmarks, or the benchmark's own.
        official: also compare with the official release.
        shown: whether to show a progress bar over the pictures.

    Raises:
        InputError: the question files are missing or unusable.
    """
    benchmark = cast(FileBenchmark, get(task))
    folder, layout = benchmark.find(root), layout_of(task)
    missing = [f"{folder / entry.path}: missing ({entry.source})" for entry in _needed(folder, layout.files)]
    samples = benchmark.load(root)
    unanswered = sum(sample.answer is None for sample in samples)
    pictures = list(dict.fromkeys(path for sample in samples for path in sample.images))
    videos = list(dict.fromkeys(sample.video for sample in samples if sample.video))
    problems = [
        *missing,
        *([f"{unanswered} of {len(samples)} questions have no gold answer"] if unanswered else []),
        *_unreadable(pictures, shown),
        *(f"{path}: not a video, or empty" for path in videos if not _holds_something(Path(path))),
    ]
    differences = list(_differences(folder, layout.files, samples)) if official else []
    return Report(benchmark.name, folder, len(samples), len(pictures), len(videos), tuple(problems), tuple(differences))


def _needed(folder: Path, entries: Sequence[Entry]) -> Iterator[Entry]:
    """Missing files. Picture folders are not checked here: the questions name their contents."""
    for entry in entries:
        if not entry.path.endswith("/") and not (folder / entry.path).is_file():
            yield entry


def _unreadable(paths: Sequence[str], shown: bool) -> list[str]:
    progress, found = Progress(len(paths), shown), []
    with ThreadPoolExecutor(WORKERS) as pool:
        for complaint in pool.map(_complaint, paths):
            progress.advance(1, failed=int(bool(complaint)))
            if complaint:
                found.append(complaint)
    progress.close()
    return found


def _complaint(path: str) -> str:
    try:
        open_picture(Path(path))
    except DataError as error:
        return str(error)
    return ""


def _holds_something(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _differences(folder: Path, entries: Sequence[Entry], samples: Sequence[Sample]) -> Iterator[str]:
    for entry in entries:
        path = folder / entry.path
        if entry.rows is not None and path.is_file():
            rows = _rows(path)
            if rows != entry.rows:
                yield f"{path}: {rows} rows, the official file has {entry.rows}"
            elif entry.sha256 and hashlib.sha256(path.read_bytes()).hexdigest() != entry.sha256:
                yield f"{path}: as many rows as the official file, but different content (sha256)"
        if entry.pictures is not None:
            named = len({name for sample in samples for name in sample.images})
            if named != entry.pictures:
                yield f"{path}: the questions name {named} pictures, the official ones {entry.pictures}"


def _rows(path: Path) -> int:
    """Rows of a JSON-lines file, a JSON array, a dictionary, or of the list `data` in one."""
    text = path.read_text(encoding="utf-8-sig").lstrip()
    if path.suffix == ".jsonl" or (text.startswith("{") and "}\n{" in text[:100_000]):
        return sum(1 for _ in read_lines(path))
    content = read_json(path, object)
    return len(content["data"] if isinstance(content, dict) and isinstance(content.get("data"), list) else content)
