"""Budgets by name, out of `configs/budgets/*.yaml`: one file per backbone, one row per line of paper Tables 12-15.

A row has the stated average (`target`), the settings that are published for methods with `both` stages, with `stage1`
alone or with `stage2` alone, each with the average that it really gives, and a `note` where the two differ.
What is not published is solved for the target when it is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from duet.budget.counts import Budget
from duet.errors import UserError, suggest

#: Published settings of a row, for methods with both stages, with stage 1 or with stage 2 alone.
SETTINGS = ("both", "stage1", "stage2")


@dataclass(frozen=True)
class Row:
    """A named budget.

    Attributes:
        name, backbone, source: what it is, of which model, and where it is from.
        target: stated average of visual tokens per layer, all pictures of the prompt together.
        settings: `both`, `stage1`, `stage2` -> the published budget, as far as there is one.
        averages: the same keys -> the average that it really gives.
        printed: `(dominant, contextual)` as the source prints them, for all pictures of the prompt together.
        note: where stated and computed average differ, and why.
    """

    name: str
    backbone: str
    source: str
    target: float
    settings: dict[str, Budget]
    averages: dict[str, float]
    printed: tuple[int, int] | None = None
    note: str = ""


def budgets() -> list[str]:
    """Names of all budgets, file by file."""
    return list(_rows())


def find_row(name: str) -> Row:
    """A named budget with its stated and computed averages.

    Raises:
        UserError: unknown name; the nearest are named.
    """
    if name not in _rows():
        raise UserError(f"unknown budget {name!r}; {suggest(name, _rows())}")
    return _rows()[name]


def _folder() -> Path:
    """Inside the package when installed, beside it in a source tree."""
    package = Path(__file__).parents[1]
    installed = package / "configs" / "budgets"
    return installed if installed.is_dir() else package.parent / "configs" / "budgets"


@cache
def _rows() -> dict[str, Row]:
    import yaml

    rows: dict[str, Row] = {}
    for path in sorted(_folder().glob("*.yaml")):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        for name, values in content["budgets"].items():
            rows[name] = _row(name, content["backbone"], values, path)
    if not rows:
        raise UserError(f"no budgets in {_folder()}; the installation is not complete")
    return rows


def _row(name: str, backbone: str, values: dict[str, Any], path: Path) -> Row:
    settings, averages = {}, {}
    try:
        for key in SETTINGS:
            if key in values:
                fields = dict(values[key])
                averages[key] = fields.pop("average")
                settings[key] = Budget(**fields)
        printed = tuple(values["printed"]) if "printed" in values else None
        note = values.get("note", "")
        return Row(name, backbone, values["source"], values["target"], settings, averages, printed, note)
    except (KeyError, TypeError, UserError) as error:
        raise UserError(f"{path}: {name}: {error}") from error
