"""Output of the commands: text and JSON on standard output, aligned tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO

_ours: TextIO | None = None


@contextmanager
def ours_alone() -> Iterator[None]:
    """Standard output is for `say` alone; what libraries print (DeepSpeed, on import) goes to standard error."""
    global _ours
    before, _ours = _ours, sys.stdout
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _ours = before


def say(text: str) -> None:
    """Print a text and a newline."""
    (_ours or sys.stdout).write(text + "\n")


def say_json(content: Any) -> None:
    """Print a value as indented JSON."""
    say(json.dumps(content, indent=2, ensure_ascii=False))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
