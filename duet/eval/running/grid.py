"""The runs of an experiment: models x methods x budgets, from a YAML file (see `configs/eval/quickstart.yaml`).

    models: {llava-mini: playground/mini/checkpoints/llava-mini}
    methods: [visionzip, pyramiddrop, duet]
    budgets: {third: {average: 33.33}, ninth: {average: 11.11, instead: {pyramiddrop: {layers: [1], ratios: [0.0]}}}}
    tasks: [pope, gqa]

Every model also runs without compression. A budget is a name from `duet budget list`, an `average` that is solved for
each method, or numbers (dominant, contextual, cluster_width, layers, ratios, keep, entry, frozen) for all methods.
`instead` gives the numbers for methods that cannot have the average. An average may have a `shape`: a name of
`duet.budget.shapes`, of a budget, or a file of `duet schedule`; otherwise each method has its own schedule.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from duet.budget import Backbone, Budget, Schedule, resolve_budget
from duet.budget.names import find_shape
from duet.budget.shapes import fit_shape
from duet.config import ConfigError, build
from duet.errors import UserError, suggest
from duet.eval.benchmarks import get
from duet.method_table import find_method

FULL = "full"
_AVERAGE = "average"
#: What `Budget.solve` takes besides an average.
SOLVER = (
    *("contextual_share", "cluster_width", "layers", "ratios", "ratio_base"),
    *("entry", "frozen", "away", "measure", "shape"),
)


@dataclass(frozen=True)
class Grid:
    """An experiment.

    Attributes:
        models: name in the table -> folder or hub id. The first one, without compression, is the reference for all.
        methods: besides `none`.
        budgets: name in the table -> budget, see the module's docstring.
        tasks: benchmarks.
        data: root of their files.
        output: folder of all results.
        batch_size, limit, seed, max_new_tokens: see `duet eval`.
        switches: where paper and released code differ (`duet.switches.Switches`), for all methods.
        loading: device, dtype, attn_implementation, revision.
        share: pictures are read once for all questions about them, by the tower once for all methods and budgets.
    """

    models: dict[str, str]
    methods: tuple[str, ...]
    budgets: dict[str, Any]
    tasks: tuple[str, ...]
    data: str
    output: str
    batch_size: int = 32
    limit: int | None = None
    seed: int = 0
    max_new_tokens: int | None = None
    switches: dict[str, str] = field(default_factory=dict)
    loading: dict[str, Any] = field(default_factory=dict)
    share: bool = True

    def __post_init__(self) -> None:
        for name in ("models", "budgets", "tasks"):
            if not getattr(self, name) and (name != "budgets" or self.methods):
                raise ConfigError(f"{name} is empty; name at least one")
        if FULL in self.budgets:
            raise ConfigError(f"budget {FULL!r} is the name of runs without compression; choose another one")
        for name in ("batch_size", "limit", "max_new_tokens", "seed"):
            value, least = getattr(self, name), 0 if name == "seed" else 1
            optional = name in ("limit", "max_new_tokens") and value is None
            if not optional and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise ConfigError(f"{name} is {value!r}; give a whole number of at least {least}")
        for name, choice in self.switches.items():
            if not isinstance(choice, str) or not choice:
                raise ConfigError(f"switches: {name} is {choice!r}; give a choice, or leave it out")
        for task in self.tasks:
            get(task)
        for method in self.methods:
            find_method(method)

    def cells(self) -> Iterator[Cell]:
        """All runs, model by model, the full one first, then budget by budget."""
        for model in self.models:
            yield Cell(model, "none", FULL)
            for budget in self.budgets:
                yield from (Cell(model, method, budget) for method in self.methods if method != "none")

    def folder(self, cell: Cell) -> Path:
        """Where the tasks of a run are written."""
        return Path(self.output, cell.model, f"{cell.method}@{cell.budget}")


@dataclass(frozen=True)
class Cell:
    """One run: names of model, method and budget as the table shows them."""

    model: str
    method: str
    budget: str

    def __str__(self) -> str:
        return f"{self.model} {self.method}" if self.budget == FULL else f"{self.model} {self.method} {self.budget}"


def find_budget(given: Any, method: str, backbone: Backbone, ratio_base: str | None = None) -> Budget:
    """The budget given by a name, an average or numbers, for a method on a backbone.

    Args:
        given: see the module's docstring.
        method, backbone: for which an average is solved.
        ratio_base: the switch, overrides the budget's (`duet.switches.Switches`); averages are solved under it.

    Raises:
        UserError: unknown name, numbers out of range, or an average that the method cannot have.
    """
    parts = find_method(method)
    if not parts.stages:
        if given is None:
            return Budget()
        budget = build(Budget, given, "budget") if isinstance(given, Mapping) and _AVERAGE not in given else Budget()
        if budget == Budget():
            raise UserError(f"method {method} keeps all tokens; budget {given!r} would have no effect")
        return resolve_budget(budget, None, backbone, method=method)
    if given is None:
        raise UserError(f"method {method} needs a budget: a name of `duet budget list`, an average, or numbers")
    if isinstance(given, (str, int, float)) and not isinstance(given, bool):
        return resolve_budget(given, parts.schedule, backbone, method=method, ratio_base=ratio_base)
    if not isinstance(given, Mapping):
        raise ConfigError(f"budget {given!r}: give a name, an average or numbers ({{dominant: 170, contextual: 35}})")
    numbers = dict(given)
    instead = numbers.pop("instead", {})
    if not isinstance(instead, Mapping):
        raise ConfigError(f"budget: instead is {instead!r}; give method -> budget")
    if method in instead:
        return find_budget(instead[method], method, backbone, ratio_base)
    if ratio_base is not None:
        numbers["ratio_base"] = ratio_base
    if _AVERAGE in numbers:
        return _solved(numbers, backbone, parts.schedule, method)
    budget = build(Budget, numbers, "budget")
    return budget if len(parts.stages) == 2 else budget.only(parts.stages[0])


def _solved(numbers: dict[str, Any], backbone: Backbone, schedule: Schedule | None, method: str) -> Budget:
    """`Budget.solve` with the average and settings from a file."""
    average = numbers.pop(_AVERAGE)
    if isinstance(average, bool) or not isinstance(average, (int, float)):
        raise ConfigError(f"budget: average is {average!r}; give a number of tokens")
    unknown = [name for name in numbers if name not in SOLVER]
    if unknown:
        raise ConfigError(f"budget: {unknown[0]!r} does not go with an average; {suggest(str(unknown[0]), SOLVER)}")
    shape = numbers.pop("shape", None)
    if shape is not None and schedule is not None:
        schedule = fit_shape(schedule, find_shape(str(shape)), backbone, method)
    return Budget.solve(float(average), backbone, schedule=schedule, **numbers)
