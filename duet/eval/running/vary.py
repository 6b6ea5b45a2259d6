"""Budgets of a parameter sweep: every combination of the values in the `vary` section of a grid.

    vary:
      - fixed: {layers: [16, 24], ratios: [0.5, 0.0]}
        total: 307                                      # dominant + contextual
        each: {dominant: [200, 250, 300], cluster_width: [2, 4]}

adds six budgets, `dominant=200 cluster_width=2` to `dominant=300 cluster_width=4`, to those in `budgets`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from math import inf
from typing import Any

from duet.config import ConfigError

BLOCK = {"fixed", "each", "total"}


def expand(values: Mapping[str, Any]) -> dict[str, Any]:
    """The grid with its `vary` section turned into budgets.

    Args:
        values: content of a grid file.

    Raises:
        ConfigError: an invalid block, or two budgets with one name.
    """
    grid = {key: value for key, value in values.items() if key != "vary"}
    budgets, blocks = grid.get("budgets") or {}, values.get("vary") or []
    if not isinstance(budgets, Mapping):
        raise ConfigError(f"budgets: give names and what they are (name: {{average: 64}}), not {budgets!r}")
    if not isinstance(blocks, list):
        raise ConfigError(f"vary: give a list of blocks, not {blocks!r}")
    budgets = dict(budgets)
    for block in blocks:
        for name, numbers in _combinations(block):
            if name in budgets:
                raise ConfigError(f"vary: two budgets are called {name!r}; put what distinguishes them into `each`")
            budgets[name] = numbers
    return {**grid, "budgets": budgets}


def _combinations(block: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    each, fixed = _checked(block)
    for chosen in product(*each.values()):
        numbers = {**fixed, **dict(zip(each, chosen, strict=True))}
        label = " ".join(f"{name}={_word(value)}" for name, value in zip(each, chosen, strict=True))
        if "total" in block:
            numbers["contextual"] = block["total"] - numbers["dominant"]
            label = f"{label} of {block['total']}"
        yield label, numbers


def _checked(block: Any) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """`each` and `fixed` of a block.

    Raises:
        ConfigError: it is no block, or a value in it is not what it has to be.
    """
    if not isinstance(block, Mapping) or not block.get("each") or set(block) - BLOCK:
        raise ConfigError(f"vary: {block!r} must have `each` (name -> list of values), and maybe `fixed` and `total`")
    each, fixed = block["each"], block.get("fixed") or {}
    for name, values in (("each", each), ("fixed", fixed)):
        if not isinstance(values, Mapping):
            raise ConfigError(f"vary: {name}: give names and values, not {values!r}")
    for name, choices in each.items():
        if not isinstance(choices, list) or not choices:
            raise ConfigError(f"vary: each: {name}: give a list of values, not {choices!r}")
        for value in choices:
            if not all(map(_is_number, value if isinstance(value, list) else [value])):
                raise ConfigError(f"vary: each: {name}: {value!r} is no number and no list of numbers")
    if "total" in block:
        dominant = each.get("dominant", [fixed.get("dominant")])
        if not _is_number(block["total"]) or not all(map(_is_number, dominant)):
            raise ConfigError(f"vary: total: {block['total']!r} needs to be a number, and `dominant` numbers beside it")
    return dict(each), dict(fixed)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < inf


def _word(value: Any) -> str:
    return "+".join(f"{part:g}" for part in value) if isinstance(value, list) else f"{value:g}"
