"""Budgets of a parameter sweep: every combination of the values that are listed, in the `vary` section of a grid.

    vary:
      - fixed: {layers: [16, 24], ratios: [0.5, 0.0]}
        total: 307                                      # dominant + contextual
        each: {dominant: [200, 250, 300], cluster_width: [2, 4]}

makes six budgets, `dominant=200 cluster_width=2` to `dominant=300 cluster_width=4`, beside those in `budgets`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from duet.config import ConfigError

BLOCK = {"fixed", "each", "total"}


def expand(values: Mapping[str, Any]) -> dict[str, Any]:
    """The grid with its `vary` section turned into budgets.

    Args:
        values: content of a grid file.

    Raises:
        ConfigError: a block that is no block, or two budgets of one name.
    """
    grid = {key: value for key, value in values.items() if key != "vary"}
    budgets = dict(grid.get("budgets") or {})
    for block in values.get("vary") or []:
        for name, numbers in _combinations(block):
            if name in budgets:
                raise ConfigError(f"vary: two budgets are called {name!r}; put what tells them apart into `each`")
            budgets[name] = numbers
    return {**grid, "budgets": budgets}


def _combinations(block: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    if not isinstance(block, Mapping) or not block.get("each") or set(block) - BLOCK:
        raise ConfigError(f"vary: {block!r} must have `each` (name -> list of values), and maybe `fixed` and `total`")
    names, lists = list(block["each"]), list(block["each"].values())
    for name, choices in block["each"].items():
        if not isinstance(choices, list):
            raise ConfigError(f"vary: each: {name}: give a list of values, not {choices!r}")
    for chosen in product(*lists):
        varied = dict(zip(names, chosen, strict=True))
        numbers = {**(block.get("fixed") or {}), **varied}
        if "total" in block:
            numbers["contextual"] = block["total"] - numbers["dominant"]
        label = " ".join(f"{name}={_word(value)}" for name, value in varied.items())
        yield (f"{label} of {block['total']}" if "total" in block else label), numbers


def _word(value: Any) -> str:
    return "+".join(f"{part:g}" for part in value) if isinstance(value, list) else f"{value:g}"
