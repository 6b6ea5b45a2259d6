"""The files of every benchmark: paths, counts of rows and pictures, and sources.

    playground/data/eval/pope/
      llava_pope_test.jsonl            8910 rows                 eval.zip of LLaVA
      val2014/                         500 pictures     6.6 GB   images.cocodataset.org/zips/val2014.zip

The facts are in `configs/data/benchmarks.yaml`; the folders are those of LLaVA and Video-LLaVA.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import cast

import yaml

from duet.eval.benchmarks import get
from duet.eval.benchmarks.video_qa import PARENT, VideoQa
from duet.eval.scoring.benchmark import FileBenchmark
from duet.eval.types import InputError
from duet.shipped import configs

COUNTED = ("rows", "pictures", "videos")


@dataclass(frozen=True)
class Entry:
    """A file, or a folder whose path ends with a slash.

    Attributes:
        path: relative to the benchmark's folder.
        source: where to get it.
        rows, pictures, videos: how many the official release has; None where not known.
        size: of the download that holds it.
        sha256: of the official file's bytes.
        url: from where `duet data fetch` gets it; empty where it must be fetched by hand.
        unpack: the file or folder of the downloaded ZIP file that it is; None if it is not packed.
    """

    path: str
    source: str
    rows: int | None = None
    pictures: int | None = None
    videos: int | None = None
    size: str = ""
    sha256: str = ""
    url: str = ""
    unpack: str | None = None


@dataclass(frozen=True)
class Layout:
    """The files of one benchmark.

    Attributes:
        questions: accepted numbers of questions, the published one first.
        license: of the data, as its authors state it.
    """

    task: str
    folder: str
    questions: tuple[int, ...]
    files: tuple[Entry, ...]
    license: str


def layout_of(task: str) -> Layout:
    """The layout of a benchmark, by any of its names.

    Raises:
        InputError: there is no such benchmark.
    """
    benchmark = cast(FileBenchmark, get(task))
    if benchmark.name not in _facts():
        raise InputError(f"{task} is a question file of your own, which has no official release to compare with")
    facts = _facts()[benchmark.name]
    folder = f"{PARENT}/{benchmark.folder}" if isinstance(benchmark, VideoQa) else benchmark.folder
    files = tuple(Entry(**entry) for entry in facts["files"])
    return Layout(benchmark.name, folder, tuple(facts["questions"]), files, facts["license"])


def questions_of(task: str) -> tuple[int, ...]:
    """Numbers of questions in the official data, first the one of the published results."""
    return layout_of(task).questions


def tree(layouts: Sequence[Layout], root: str) -> str:
    """The folders as text, with counts and sources."""
    lines = []
    for layout in layouts:
        cells = [(entry.path, _counts(entry), entry.size, entry.source) for entry in layout.files]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines.append(f"{root.rstrip('/')}/{layout.folder}/")
        for row in cells:
            text = "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True) if width)
            lines.append(f"  {text.rstrip()}")
    return "\n".join(lines)


def _counts(entry: Entry) -> str:
    return ", ".join(f"{getattr(entry, name)} {name}" for name in COUNTED if getattr(entry, name) is not None)


@cache
def _facts() -> dict[str, dict]:
    return yaml.safe_load((configs("data") / "benchmarks.yaml").read_text(encoding="utf-8"))
