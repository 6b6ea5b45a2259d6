"""Files of this repository that help texts, docstrings, scripts and configurations name are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLACES = ("duet", "llava", "videollava", "qwen2_5_vl", "visionzip", "pyramiddrop", "scripts", "configs", "docs")
NAMED = re.compile(r"(?<![\w./-])((?:configs|scripts|playground/mini|benchmarks)/[\w./-]+\.(?:yaml|json|sh|py|md))\b")
SOURCES = sorted(
    path
    for place in PLACES
    for path in (ROOT / place).rglob("*")
    if path.suffix in (".py", ".sh", ".yaml", ".md") and "results" not in path.parts
)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_are_named_are_there(path: Path) -> None:
    named = set(NAMED.findall(path.read_text(encoding="utf-8")))
    assert not {name for name in named if not (ROOT / name).exists()}
