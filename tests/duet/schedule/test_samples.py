"""Samples from a file of JSON lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from duet.errors import UserError
from duet.schedule.samples import digest, read_samples


def write(folder: Path, *rows: Any) -> Path:
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(name.encode())
    file = folder / "samples.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return file


def test_rows_of_every_kind(tmp_path):
    file = write(
        tmp_path,
        {"image": "a.png", "question": "What?", "stratum": "short"},
        {"images": ["a.png", "b.png"], "text": "Which?", "stratum": "short"},
        {"video": "b.png", "question": "When?"},
    )
    first, second, third = read_samples(file)
    assert (first.question, first.files, first.stratum) == ("What?", (tmp_path / "a.png",), "short")
    assert second.files == (tmp_path / "a.png", tmp_path / "b.png")
    assert (third.stratum, third.files) == ("all", (tmp_path / "b.png",))
    assert read_samples(file, limit=1) == [first, third]
    assert digest([first]) != digest([second]) and digest([first]) == digest([first])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"image": "a.png"}, r"samples.jsonl:1: `question` is missing"),
        ({"question": "What?"}, r"samples.jsonl:1: a sample needs a picture or a video"),
        ({"question": "What?", "image": "c.png"}, r"c\.png"),
        ({"question": "What?", "image": "a.png", "stratum": 3}, "stratum is 3"),
        (["What?"], "holds a list"),
    ],
)
def test_bad_rows_are_named(tmp_path, row, message):
    with pytest.raises(UserError, match=message):
        read_samples(write(tmp_path, row))
