"""Reads and checks `metrics.json`, the result of `duet eval` for one task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from duet.errors import UserError
from duet.eval.reading import is_number, name_of, read_json, shown
from duet.eval.scoring.subset import Subset, read_subset
from duet.method_table import find_method

FILE = "metrics.json"
NUMBER, MAYBE, COUNT = "a number", "a number or null", "a whole number"
#: Fields that tables and figures read; there may be others.
SHAPE: dict[str, Any] = {
    "task": str,
    "headline": {"name": str, "value": NUMBER},
    "metrics": {},
    "counts": dict.fromkeys(("asked", "scored", "missing", "failed", "ties"), COUNT),
    "tokens": {"computed_average": MAYBE, "average": MAYBE},
    "timing": {"prefill_ms": MAYBE, "decode_ms": MAYBE},
    "flops": {"tower": NUMBER, "projector": NUMBER, "prefill": NUMBER},
    "settings": {"model": str, "method": str, "budget": {}, "switches": {}, "dtype": str},
    "surroundings": {"device": str, "threads": COUNT},
}


def read_metrics(path: Path) -> dict[str, Any]:
    """The content of a `metrics.json`.

    Raises:
        UserError: not written by `duet eval`, edited or damaged; the message names file and field.
    """
    found = read_json(path)
    _check(found, SHAPE, str(path))
    for name, value in found["metrics"].items():
        _check({name: value}, {name: NUMBER}, f"{path}: metrics")
    subset_of(found, path)
    return found


def subset_of(found: Mapping[str, Any], where: object) -> Subset | None:
    """The subset that was asked; None for the whole benchmark.

    Raises:
        UserError: written by an older version, which took the first questions.
    """
    if "subset" not in found and found["settings"].get("limit") is not None:
        raise UserError(
            f"{where}: the first {found['settings']['limit']} questions only; run it again with --overwrite"
        )
    return read_subset(found.get("subset"), where)


def method_of(row: dict[str, Any], where: object) -> str:
    """Canonical name of the field `method`.

    Raises:
        UserError: an unknown method, or not a name.
    """
    name = name_of(row, "method", where)
    try:
        return find_method(name).name
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _check(found: Mapping[str, Any], shape: Mapping[str, Any], where: str) -> None:
    for name, kind in shape.items():
        value = found.get(name)
        if name not in found:
            raise UserError(f"{where}: {name} is missing: not a result of `duet eval`, or one of an older version")
        if isinstance(kind, dict):
            if not isinstance(value, dict):
                raise UserError(f"{where}: {name} is {shown(value)}, expected fields: was the file changed?")
            _check(value, kind, f"{where}: {name}")
        elif not _fits(value, kind):
            wanted = "text" if kind is str else kind
            raise UserError(f"{where}: {name} is {shown(value)}, expected {wanted}: was the file changed?")


def _fits(value: Any, kind: Any) -> bool:
    if kind is str:
        return isinstance(value, str)
    if kind == MAYBE and value is None:
        return True
    return is_number(value) and (kind != COUNT or isinstance(value, int))
