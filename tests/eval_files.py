"""Writes small benchmark and prediction files in the official formats, for the tests of `duet.eval`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from duet.eval.benchmarks import get
from duet.eval.scoring.predictions import read_predictions
from duet.eval.types import Score

CASES = Path(os.environ.get("DUET_CASES", Path(__file__).parents[2] / "shared" / "cases"))
SHORT = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."


def lines(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """A JSON-lines file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def document(path: Path, content: Any) -> Path:
    """A JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def score(task: str, folder: Path, rows: Iterable[dict[str, Any]], official: bool = False) -> Score:
    """Score rows as if they came from a file next to `folder`."""
    path = lines(folder.parent / "predictions.jsonl", rows)
    return get(task).score(folder, read_predictions(path), official=official)


def answer(name: Any, text: str, prompt: str | None = None) -> dict[str, Any]:
    """A line of LLaVA's answer file."""
    return {"question_id": name, "text": text} | ({} if prompt is None else {"prompt": prompt})


def case(name: str) -> Path:
    """A folder of official cases; skips the test where they are not at hand (set DUET_CASES)."""
    folder = CASES / name
    if not folder.is_dir():
        pytest.skip(f"no official cases at {folder}; set DUET_CASES to their folder")
    return folder
