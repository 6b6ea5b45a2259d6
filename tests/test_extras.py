"""Extras of pyproject.toml: every one is for something that this project does."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

if sys.version_info < (3, 11):
    pytest.skip("tomllib is there from Python 3.11", allow_module_level=True)
import tomllib

ROOT = Path(__file__).parents[1]
PACKAGES = ("duet",)
#: Of transformers, by the names that a recipe's `training.report_to` gives.
TRACKERS = {"wandb", "tensorboard"}
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]


def used() -> set[str]:
    """Modules that are imported, or looked for by name."""
    found: set[str] = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    found |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    found.add((node.module or "").split(".")[0])
                elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("find_spec", "need"):
                    found |= {word.value for word in node.args if isinstance(word, ast.Constant)}
    return found


@pytest.mark.parametrize("extra", sorted(set(EXTRAS) - {"all", "dev", "docs"}))
def test_an_extra_is_used(extra: str) -> None:
    modules = {Requirement(line).name.replace("-", "_") for line in EXTRAS[extra]}
    assert modules <= used() | TRACKERS | {"duet_vlm", "duet_vlm_mini"}  # an extra may take in another one


def test_the_trackers_are_those_of_transformers() -> None:
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    assert set(INTEGRATION_TO_CALLBACK) >= TRACKERS


def test_all_names_every_extra_that_a_plain_machine_can_install() -> None:
    (line,) = EXTRAS["all"]
    assert set(Requirement(line).extras) == set(EXTRAS) - {"all", "dev", "docs", "flash", "lmms-eval", "mini"}
