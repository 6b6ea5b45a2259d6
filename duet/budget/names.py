"""Named budgets from `configs/budgets/*.yaml`: one file per backbone, one row per line of paper Tables 12-15.

A row has the stated average (`target`), the published settings for methods with `both` stages, `stage1` alone or
`stage2` alone, each with its actual average, and a `note` if the two averages differ. Settings that are not published
are solved for the target on demand.

A row with a `shape` (`duet/budget/shapes.py`) is solved in that shape for every method without published settings: the
rows with a tail (`_safe`) and the calibrated ones. A path to such a file, as `duet schedule` writes it, is a name as
well; with several rows in it, `FILE.yaml:NAME`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from duet.budget.backbones import find_backbone
from duet.budget.counts import MEASURES, Budget
from duet.budget.schedules import Schedule
from duet.budget.shapes import SHAPES, read_shape, shape_of
from duet.errors import UserError, suggest
from duet.files import read_yaml
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
        shape: the shape for methods without settings of their own; None: the method's.
        measure: what the target counts, see `Budget.average`.
    """

    name: str
    backbone: str
    source: str
    target: float
    settings: dict[str, Budget]
    averages: dict[str, float]
    printed: tuple[int, int] | None = None
    note: str = ""
    shape: Schedule | None = None
    measure: str = MEASURES[0]


def budgets() -> list[str]:
    """Names of all budgets, file by file."""
    return list(_rows())


def find_row(name: str) -> Row:
    """A named budget with its stated and computed averages, or the row of a file.

    Raises:
        UserError: unknown name; the message suggests the nearest ones. Or a file that holds no such row.
    """
    if is_path(name):
        return _row_of_file(name)
    if name not in _rows():
        raise UserError(f"unknown budget {name!r}; {suggest(name, _rows())}")
    return _rows()[name]


def find_shape(name: str) -> Schedule:
    """A shape by name, the name of a budget that has one, or the path of a file from `duet schedule`.

    Raises:
        UserError: unknown name, or a budget without a shape.
    """
    if name in SHAPES:
        return SHAPES[name]
    if not is_path(name) and name not in budgets():
        raise UserError(f"unknown shape {name!r}; {suggest(name, [*SHAPES, *budgets()])}")
    row = find_row(name)
    if row.shape is not None:
        return row.shape
    if "both" not in row.settings:
        raise UserError(f"budget {name} has no shape for methods with both stages; choose {', '.join(SHAPES)}")
    return shape_of(row.settings["both"], find_backbone(row.backbone), name)


def is_path(name: str) -> bool:
    """Whether a name means a file: `FILE.yaml` or `FILE.yaml:NAME`."""
    return name.endswith((".yaml", ".yml")) or ".yaml:" in name


def _row_of_file(given: str) -> Row:
    path, _, name = given.partition(".yaml:")
    file = Path(f"{path}.yaml" if name else path)
    rows = _read(file)
    if name and name not in rows:
        raise UserError(f"{file} has no budget {name!r}; {suggest(name, rows)}")
    if not name and len(rows) != 1:
        raise UserError(f"{file} holds {len(rows)} budgets: name one ({file}:{next(iter(rows), 'NAME')})")
    return rows[name] if name else next(iter(rows.values()))


@cache
def _rows() -> dict[str, Row]:
    rows = {name: row for path in sorted(configs("budgets").glob("*.yaml")) for name, row in _read(path).items()}
    if not rows:
        raise UserError(f"no budgets in {configs('budgets')}; the installation is incomplete")
    return rows


def _read(path: Path) -> dict[str, Row]:
    content = read_yaml(path, UserError, "file of budgets")
    rows = content.get("budgets") if isinstance(content, dict) else None
    if not isinstance(rows, dict) or not all(isinstance(values, dict) for values in rows.values()):
        raise UserError(
            f"{path} is no file of budgets: it needs `backbone` and `budgets`, as `duet schedule` writes it"
        )
    return {name: _row(name, content.get("backbone", ""), values, path) for name, values in rows.items()}


def _row(name: str, backbone: str, values: dict[str, Any], path: Path) -> Row:
    settings, averages = {}, {}
    try:
        for key in SETTINGS:
            if key in values:
                fields = dict(values[key])
                averages[key] = fields.pop("average")
                settings[key] = Budget(**fields)
        printed = tuple(values["printed"]) if "printed" in values else None
        shape = None
        if "shape" in values:
            shape = read_shape(values["shape"], name)
        note, measure = values.get("note", ""), values.get("measure", MEASURES[0])
        if measure not in MEASURES:
            raise UserError(f"measure is {measure!r}; choose {', '.join(MEASURES)}")
        return Row(
            name, backbone, values["source"], values["target"], settings, averages, printed, note, shape, measure
        )
    except (KeyError, TypeError, UserError) as error:
        raise UserError(f"{path}: {name}: {error}") from error
