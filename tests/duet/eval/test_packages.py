"""The packages of `duet.eval` build on each other in the order that its docstring gives."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import duet.eval

FOLDER = Path(duet.eval.__file__).parent
ORDER = [line.split()[0] for line in (duet.eval.__doc__ or "").splitlines() if line.startswith("    ")]


def test_the_docstring_names_every_package() -> None:
    assert sorted(ORDER) == sorted(path.parent.name for path in FOLDER.glob("*/__init__.py"))


@pytest.mark.parametrize("package", ORDER)
def test_a_package_imports_only_those_above_it(package: str) -> None:
    shared = {path.stem for path in FOLDER.glob("*.py")}
    allowed = shared | set(ORDER[: ORDER.index(package) + 1])
    for path in (FOLDER / package).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("duet.eval."):
                assert (node.module or "").split(".")[2] in allowed, path
