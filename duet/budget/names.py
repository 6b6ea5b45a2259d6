"""Named budgets from `configs/budgets/*.yaml`: one file per backbone, one row per line of paper Tables 12-15.

A row has the stated average (`target`), the published settings for methods with `both` stages, `stage1` alone or
`stage2` alone, each with its actual average, and a `note` if the two averages differ. Settings that are not published
are solved for the target on demand.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from duet.budget.counts import Budget
from duet.errors import UserError, suggest
from duet.shipped import configs

#: Published settings of a row, for methods with both stages, stage 1 alone or stage 2 alone.
SETTINGS = ("both", "stage1", "stage2")


@dataclass(frozen=True)
class Row:
    """A named budget.

    Attributes:
        name, backbone, source: its name, its model, and its source.
        target: stated average of visual tokens per layer, all pictures of the prompt together.
        settings: `both`, `stage1`, `stage2` -> the published budget, if there is one.
        averages: the same keys -> its actual average.
        printed: `(dominant, contextual)` as the source prints them, for all pictures of the prompt together.
        note: how and why the stated and the computed average differ.
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
        UserError: unknown name; the message suggests the nearest ones.
    """
    if name not in _rows():
        raise UserError(f"unknown budget {name!r}; {suggest(name, _rows())}")
    return _rows()[name]


@cache
def _rows() -> dict[str, Row]:
    import yaml

    rows: dict[str, Row] = {}
    for path in sorted(configs("budgets").glob("*.yaml")):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        for name, values in content["budgets"].items():
            rows[name] = _row(name, content["backbone"], values, path)
    if not rows:
        raise UserError(f"no budgets in {configs('budgets')}; the installation is incomplete")
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
