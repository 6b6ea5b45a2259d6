"""Readers of tests/golden/training: rows, and what the original training code made of them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "golden" / "training"
#: The tokenizer that the cases called `toy` were made with.
TOY = Path(__file__).parent / "golden" / "llava15_tiny" / "weights_original"
LENGTH = 320


@cache
def content(name: str) -> Any:
    """One file of the folder."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def records(name: str = "rows") -> dict[str, dict[str, Any]]:
    """Rows by id."""
    return {row["id"]: row for row in content(name)}


def cases(name: str) -> list[dict[str, Any]]:
    """Rows under a template: ids and labels, or the error."""
    return content(f"expected_{name}")["cases"]
