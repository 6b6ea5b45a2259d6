"""Samples: questions without answers, in strata, from a file of JSON lines.

    {"image": "shop.png", "question": "What is written on the sign?", "stratum": "text"}

`images` names several pictures, `video` a video; `text` may stand for `question`, as in LLaVA's question files. Strata
are kinds of task: short answers, text in pictures, yes and no, captions. Without strata all samples are one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duet.errors import UserError
from duet.files import check_text, read_json_lines, regular_file

#: Stratum of samples that name none.
ALL = "all"


@dataclass(frozen=True)
class Sample:
    """A question about some pictures and videos.

    Attributes:
        question: with a placeholder for each file, or with none.
        files: pictures and videos, in order.
        stratum: its kind of task.
    """

    question: str
    files: tuple[Path, ...]
    stratum: str


def read_samples(path: Path, limit: int | None = None) -> list[Sample]:
    """The samples of a file.

    Args:
        path: JSON lines; pictures are looked for in its folder.
        limit: at most so many of each stratum, the first ones.

    Raises:
        UserError: no such file, a row without question or picture, or a picture that is not there.
    """
    found: list[Sample] = []
    taken: dict[str, int] = {}
    for number, row in read_json_lines(path):
        sample = _sample(row, f"{path}:{number}", path.parent)
        taken[sample.stratum] = taken.get(sample.stratum, 0) + 1
        if limit is None or taken[sample.stratum] <= limit:
            found.append(sample)
    if not found:
        raise UserError(f"{path} has no samples")
    for file in dict.fromkeys(file for sample in found for file in sample.files):
        regular_file(file)
    return found


def digest(samples: Sequence[Sample]) -> str:
    """Twelve hexadecimal digits of the questions, strata and contents of their files."""
    found = hashlib.sha256()
    for sample in samples:
        found.update(f"{sample.stratum}\0{sample.question}\0".encode())
        for file in sample.files:
            found.update(file.read_bytes())
    return found.hexdigest()[:12]


def _sample(row: Any, where: str, folder: Path) -> Sample:
    if not isinstance(row, dict):
        raise UserError(f"{where}: holds a {type(row).__name__}, expected an object")
    question = row.get("question", row.get("text"))
    if not isinstance(question, str):
        raise UserError(f"{where}: `question` is missing or not text")
    check_text(question, where)
    given = [row[name] for name in ("image", "images", "video", "videos") if row.get(name)]
    names = [name for one in given for name in (one if isinstance(one, list) else [one])]
    if not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"{where}: a sample needs a picture or a video (`image`, `images` or `video`)")
    stratum = row.get("stratum", ALL)
    if not isinstance(stratum, str) or not stratum:
        raise UserError(f"{where}: stratum is {stratum!r}; give a word")
    return Sample(question, tuple(folder / name for name in names), stratum)
