"""`duet table paired`: the runs of a sweep against one of its methods, with the interval of each difference.

Two intervals that overlap do not say that two methods are equal. A paired difference does: both methods answer the same
questions, so most of the noise of which pictures were drawn cancels. The differences are in points of the average
percentage (mean over tasks of score / score with all tokens), from the draws of `duet.report.bootstrap`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from duet.errors import UserError
from duet.eval.benchmarks import get
from duet.eval.running.decisions import read_decisions
from duet.eval.running.grid import FULL, Cell, Grid
from duet.eval.scoring.benchmark import FileBenchmark
from duet.method_table import find_method
from duet.report.bootstrap import DRAWS, ENDS, resampled_scores, shares_of
from duet.report.experiment import Result, check_same_questions, read_grid, read_results
from duet.report.render import Table
from duet.report.tables import NAMES, NOTHING, asked_average


@dataclass(frozen=True)
class Difference:
    """A difference in points, with the ends of its 95 % interval."""

    points: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.points:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"


def paired_table(
    folder: Path,
    against: str | None = None,
    versus: Path | None = None,
    rows: Sequence[str] = (),
    by_task: bool = False,
) -> Table:
    """Percent of the full model, and the paired difference to a reference run, for every run of a sweep.

    Args:
        folder: of a sweep.
        against: the method that all others under the same budget are compared with; `METHOD@BUDGET` for one run. By
            default each method's own run in `versus`, else the sweep's first method.
        versus: another sweep with the same questions, for the reference.
        rows: only these methods; empty for all.
        by_task: differences of every task, too.

    Raises:
        UserError: no such sweep, method or budget, or different questions.
    """
    grid = read_grid(folder)
    other = grid if versus is None else read_grid(versus)
    results = {result.cell: result for result in read_results(grid)}
    there = results if versus is None else {result.cell: result for result in read_results(other)}
    if against is None and versus is None:
        against = next(cell.method for cell in results if cell.budget != FULL)
    draws = _Draws(grid, other, results, there)
    wanted = {find_method(name).name for name in rows}
    shown: list[list[str]] = []
    records: list[dict[str, Any]] = []
    single = len({cell.method for cell in results if cell.budget != FULL}) == 1
    for budget in grid.budgets:
        cells = [cell for cell in results if cell.budget == budget]
        cells = [cell for cell in cells if not wanted or find_method(cell.method).name in wanted]
        if cells and not single:
            average = asked_average(grid.budgets[budget])
            shown.append([budget + ("" if average is None else f", {average:.1f} tokens")])
        for cell in cells:
            reference = _reference(cell, against, there)
            found = draws.differences(cell, reference)
            same = cell == reference and versus is None
            shown.append([budget if single else cell.method, *_cells(results[cell], found, same, by_task)])
            records.append(_record(results[cell], reference, found))
    named = [NAMES.get(task, task) for task in draws.tasks] if by_task else []
    header = ["Budget" if single else "Method", "% [95 %]", "Difference [95 %]", "Tokens", *named]
    return Table("Paired differences", header, shown, records, list(_notes(grid, other, against, by_task)))


class _Draws:
    """The scores of all complete runs on the same draws, by task."""

    def __init__(
        self, grid: Grid, other: Grid, results: dict[Cell, Result], there: dict[Cell, Result], draws: int = DRAWS
    ) -> None:
        self.tasks = [get(task).name for task in grid.tasks]
        if self.tasks != [get(task).name for task in other.tasks]:
            raise UserError(f"{grid.output} and {other.output} have different tasks: they cannot be compared in pairs")
        self.full = Cell(next(iter(grid.models)), "none", FULL)
        self.results, self.there = results, there
        self.scores: dict[str, dict[Any, np.ndarray]] = {}
        for task in self.tasks:
            benchmark = cast(FileBenchmark, get(task))
            folders = {("here", cell): grid.folder(cell) for cell in self._whole(results)}
            folders |= {("there", cell): other.folder(cell) for cell in self._whole(there)}
            decided = {name: read_decisions(place / task) for name, place in folders.items()}
            if decided:
                check_same_questions({str(folders[name] / task): lines for name, lines in decided.items()})
                self.scores[task] = resampled_scores(decided, benchmark, draws)

    def _whole(self, results: dict[Cell, Result]) -> list[Cell]:
        return [cell for cell, result in results.items() if len(result.found) == len(self.tasks)]

    def differences(self, cell: Cell, reference: Cell) -> dict[str, Difference] | None:
        """By task, and `average`; None while one of the runs is not complete."""
        wanted = [("here", cell), ("there", reference), ("here", self.full)]
        if not all(name in self.scores.get(task, {}) for task in self.tasks for name in wanted):
            return None
        found = {}
        ours, theirs = ([self.scores[task][name] for task in self.tasks] for name in wanted[:2])
        full = [self.scores[task][wanted[2]] for task in self.tasks]
        if any((task == 0).any() for task in full):
            return None
        points = [
            100 * (self.results[cell].scores[task] - self.there[reference].scores[task]) / score
            for task, score in self.results[self.full].scores.items()
        ]
        for number, task in enumerate(self.tasks):
            one = slice(number, number + 1)
            found[task] = _difference(points[number], ours[one], theirs[one], full[one])
        found["average"] = _difference(sum(points) / len(points), ours, theirs, full)
        return found


def _difference(
    points: float, ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], full: Sequence[np.ndarray]
) -> Difference:
    low, high = np.percentile(shares_of(ours, full) - shares_of(theirs, full), ENDS)
    return Difference(points, float(low), float(high))


def _reference(cell: Cell, against: str | None, there: dict[Cell, Result]) -> Cell:
    method, _, budget = (against or cell.method).partition("@")
    name = find_method(method).name
    for found in there:
        same_model = found.model == cell.model or len({one.model for one in there}) == 1
        if same_model and find_method(found.method).name == name and found.budget == (budget or cell.budget):
            return found
    raise UserError(f"there is no run of {method} under budget {budget or cell.budget!r} to compare with")


def _cells(result: Result, found: dict[str, Difference] | None, same: bool, by_task: bool) -> list[str]:
    percent = NOTHING if result.percent is None else f"{result.percent:.1f}"
    percent += "" if result.ends is None else " [{:.1f}, {:.1f}]".format(*result.ends)
    tokens = NOTHING if result.tokens is None else f"{result.tokens:.1f}"
    if found is None:
        return [percent, NOTHING, tokens]
    average = "" if same else str(found["average"])
    tasks = [("" if same else str(each)) for name, each in found.items() if name != "average"] if by_task else []
    return [percent, average, tokens, *tasks]


def _record(result: Result, reference: Cell, found: dict[str, Difference] | None) -> dict[str, Any]:
    record: dict[str, Any] = {
        "method": result.cell.method,
        "budget": result.cell.budget,
        "percent": result.percent,
        "percent_ends": result.ends,
        "tokens": result.tokens,
        "against": f"{reference.method}@{reference.budget}",
    }
    for name, each in (found or {}).items():
        record[name] = [each.points, each.low, each.high]
    return record


def _notes(grid: Grid, other: Grid, against: str | None, by_task: bool) -> Iterator[str]:
    model = next(iter(grid.models))
    yield (
        f"%: mean over {len(grid.tasks)} tasks of score / score of {model} with all tokens, with the 95 % interval of "
        "a bootstrap over pictures."
    )
    reference = f"{against or 'the same method'}{'' if '@' in (against or '') else ' under the same budget'}"
    where = "" if other is grid else f" in {other.output}"
    tasks = "; of each task in percent of its full score" if by_task else ""
    yield f"Difference: to {reference}{where}, in points of that, paired{tasks}."
    if grid.switches:
        yield f"All runs had the switches {', '.join(f'{name}={choice}' for name, choice in grid.switches.items())}."
