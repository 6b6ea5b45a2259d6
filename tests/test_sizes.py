"""No file over 400 lines, no function over 70: a reader holds one of them in mind at a time."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = (
    "benchmarks",
    "duet",
    "llava",
    "packaging",
    "playground",
    "pyramiddrop",
    "qwen2_5_vl",
    "scripts",
    "tests",
    "videollava",
    "visionzip",
)
LINES, FUNCTION = 400, 70


@pytest.mark.parametrize("folder", FOLDERS)
def test_files_and_functions_are_short(folder):
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files or folder == "scripts"
    long = []
    for path in files:
        text = path.read_text(encoding="utf-8")
        lines, name = text.count("\n"), path.relative_to(ROOT)
        long += [f"{name}: {lines} lines"] if lines > LINES else []
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = (node.end_lineno or 0) - node.lineno + 1
                long += [f"{name}: {node.name} has {lines} lines"] if lines > FUNCTION else []
    assert not long


def test_every_folder_with_code_is_looked_at():
    known = {path.parent.name for path in ROOT.glob("*/*.py")}
    assert known - {"demo"} <= set(FOLDERS), known - set(FOLDERS)
