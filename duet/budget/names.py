"""Budgets by name, out of `configs/budgets/*.yaml`: one file per backbone, one row per line of paper Tables 12-15.

A row has the stated average (`target`), the settings that are published for methods with `both` stages, with `stage1`
alone or with `stage2` alone, each with the average that it really gives, and a `note` where the two differ.
What is not published is solved for the target when it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from duet.budget.backbones import Backbone, find_backbone
from duet.budget.counts import RATIO_BASES, Budget
from duet.errors import UserError, suggest

#: Stages that a method has -> key of a row.
SETTINGS = {(1, 2): "both", (1,): "stage1", (2,): "stage2"}


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


def named(
    name: str,
    stages: Sequence[int] = (1, 2),
    backbone: str | Backbone | None = None,
    ratio_base: str | None = None,
) -> Budget:
    """The budget of a name for a method with these stages: the published setting, else one with the same average.

    Args:
        name: one of `budgets()`.
        stages: `(1, 2)`, `(1,)` or `(2,)`.
        backbone: to solve on, and deep enough for the layers; default is the one that the name belongs to.
        ratio_base: in place of the published one, or to solve under, see `Budget.drops`.

    Raises:
        UserError: unknown name or `ratio_base`, an average that the stages cannot reach, or layers behind the last one.
    """
    row = find_row(name)
    key = SETTINGS.get(tuple(stages))
    if key is None:
        raise UserError(f"stages {tuple(stages)} do not exist; choose (1, 2), (1,) or (2,)")
    model = find_backbone(backbone or row.backbone)
    if key in row.settings:
        published = row.settings[key]
        check_depth(name, published, model.decoder.layers)
        return published if ratio_base is None else replace(published, ratio_base=ratio_base)
    return Budget.solve(row.target, model, stages, ratio_base=ratio_base or RATIO_BASES[0])


def check_depth(name: str, budget: Budget, depth: int) -> None:
    """Whether the layers of a named budget fit a language model with `depth` of them.

    Raises:
        UserError: the budget is made for a deeper model; the message says for which.
    """
    try:
        budget.layers_for(depth)
    except UserError as error:
        raise UserError(
            f"budget {name} is made for {find_row(name).backbone}, not for this model ({error}): ask for an average "
            "instead (--average TOKENS, duet.Budget.solve), or take another of `duet budget list`"
        ) from error


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
        for key in SETTINGS.values():
            if key in values:
                fields = dict(values[key])
                averages[key] = fields.pop("average")
                settings[key] = Budget(**fields)
        printed = tuple(values["printed"]) if "printed" in values else None
        note = values.get("note", "")
        return Row(name, backbone, values["source"], values["target"], settings, averages, printed, note)
    except (KeyError, TypeError, UserError) as error:
        raise UserError(f"{path}: {name}: {error}") from error
