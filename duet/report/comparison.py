"""A table of the paper with printed and measured values, from the results of `duet eval`.

A run belongs to the row with its method and its share of the visual tokens: 64 of 576 and 11.25 of 100 are the same
row. So the playground's small model, or any other, can be compared with the paper; the notes name the model and the
number of questions. If the number of tokens depends on the picture (Table 2), the budget has to be the named one.

    compare(read_table(1), find_runs(Path("outputs/quickstart"), ["llava-mini"]))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from duet.budget import Budget, find_row, resolve_budget
from duet.config import build, parse_value
from duet.errors import UserError
from duet.method_table import METHODS
from duet.report.footnotes import Footnotes, general_notes
from duet.report.paper import AVERAGE, HEADINGS, SPEEDUP, TIME_SAVED, PaperRow, PaperTable, average
from duet.report.render import Table
from duet.report.runs import Run
from duet.report.training import TrainingRun

#: Largest difference between the stated and the measured share of the visual tokens within a row.
TOLERANCE = 0.015
EMPTY = "–"


@dataclass(frozen=True)
class Measured:
    """The measured values of a row.

    Attributes:
        runs: by benchmark.
        values: by column of the table, if there are any.
        partial: columns that lack questions or benchmarks.
    """

    runs: dict[str, Run] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    partial: frozenset[str] = frozenset()

    @property
    def tokens(self) -> float | None:
        """Average of visual tokens, by the budget."""
        return next((run.average for run in self.runs.values()), None)


def compare(table: PaperTable, runs: Sequence[Run], trainings: Sequence[TrainingRun] = ()) -> Table:
    """The table with its measured cells.

    Args:
        table: Tables 1 to 11.
        runs: results; those without a row are ignored.
        trainings: for the column of training times.

    Raises:
        UserError: two runs for one cell, such as those of two models.
    """
    found = [_measure(table, row, runs, trainings) for row in table.rows]
    notes = Footnotes(table)
    rows: list[list[str]] = []
    for number, (row, measured) in enumerate(zip(table.rows, found, strict=True)):
        if number == 0 or row.tokens != table.rows[number - 1].tokens:
            rows.append([_group(table, row)])
        tokens = EMPTY if measured.tokens is None else f"{measured.tokens:.1f}"
        cells = [_cell(name, value, measured) + notes.mark(row, name) for name, value in table.published(row).items()]
        rows.append([row.label + notes.mark(row), tokens, *cells])
    header = ["Method", "tokens here", *(HEADINGS[name][0] for name in table.columns)]
    used = {run.folder: run for measured in found for run in measured.runs.values()}
    title = f"Table {table.number}. {table.title}: paper → here (difference)"
    return Table(
        title, header, rows, _records(table, found), [*notes.lines, *general_notes(table, list(used.values()))]
    )


def _measure(table: PaperTable, row: PaperRow, runs: Sequence[Run], trainings: Sequence[TrainingRun]) -> Measured:
    tasks = table.averaged(row)
    chosen = _choose(table, row, runs)
    baseline = _choose(table, table.baseline, runs)
    values = {task: run.value for task, run in chosen.items() if run.value is not None}
    scale = {task: run.value for task, run in baseline.items() if run.value}
    both = [task for task in tasks if task in values and task in scale]
    partial = {task for task, run in chosen.items() if not run.complete}
    share = average(values, scale, both)
    if share is not None:
        values[AVERAGE] = share
        if len(both) < len(tasks) or any(not (chosen[task].complete and baseline[task].complete) for task in both):
            partial.add(AVERAGE)
    for name, value in ((SPEEDUP, _speedup(chosen, baseline)), (TIME_SAVED, _time_saved(table, row, trainings))):
        if value is not None:
            values[name] = value
    return Measured(chosen, {name: values[name] for name in table.columns if name in values}, frozenset(partial))


def _choose(table: PaperTable, row: PaperRow, runs: Sequence[Run]) -> dict[str, Run]:
    """The run of each benchmark that belongs to a row; of several, the one with exactly the paper's budget.

    Raises:
        UserError: several are left.
    """
    chosen: dict[str, Run] = {}
    for task in table.tasks:
        fitting = [run for run in runs if run.task == task and _belongs(table, row, run, runs)]
        if len(fitting) > 1 and row is not table.baseline:
            fitting = [run for run in fitting if run.budget == row_budget(table, row)] or fitting
        if len(fitting) > 1:
            first, second, *_ = fitting
            raise UserError(
                f"table {table.number}: {first.folder} and {second.folder} both are {row.label}, {row.tokens} tokens; "
                "choose by --model, --baseline or a smaller --results"
            )
        if fitting:
            chosen[task] = fitting[0]
    return chosen


def row_budget(table: PaperTable, row: PaperRow) -> Budget:
    """The budget of a compressed row, on the table's own backbone."""
    name, method = table.budget(row), METHODS[row.method]
    if name.startswith("{"):
        return build(Budget, parse_value(name, "budget"), f"table {table.number}: {row.label}")
    return resolve_budget(name, method.schedule, find_row(name).backbone, method=method.name)


def _belongs(table: PaperTable, row: PaperRow, run: Run, runs: Sequence[Run]) -> bool:
    if run.method != row.method or run.switches:
        return False
    if run.method == "none":
        return True
    if row.tokens is None or table.baseline.tokens is None:
        return run.budget == row_budget(table, row)
    full = next((other.average for other in runs if other.method == "none"), table.baseline.tokens)
    return abs(run.average / full - row.tokens / table.baseline.tokens) <= TOLERANCE


def _speedup(chosen: Mapping[str, Run], baseline: Mapping[str, Run]) -> float | None:
    """Time of the model with all tokens over that of the row, on the benchmarks of both, all questions together."""
    pairs = [(baseline[task], run) for task, run in chosen.items() if task in baseline]
    times = [
        (run.asked * full.milliseconds, run.asked * run.milliseconds)
        for full, run in pairs
        if full.milliseconds is not None and run.milliseconds is not None
    ]
    return sum(full for full, _ in times) / sum(ours for _, ours in times) if times else None


def _time_saved(table: PaperTable, row: PaperRow, trainings: Sequence[TrainingRun]) -> float | None:
    """Percent of the baseline's time per training step that the row's model saves."""
    if TIME_SAVED not in table.columns or row.tokens is None or table.baseline.tokens is None:
        return None
    full = [run for run in trainings if run.method == "none"]
    share = row.tokens / table.baseline.tokens
    fitting = [
        run
        for run in trainings
        if full and run.method == row.method and abs(run.visual_tokens / full[0].visual_tokens - share) <= TOLERANCE
    ]
    for runs in (full, fitting):
        if len(runs) > 1:
            folders = ", ".join(str(run.folder) for run in runs)
            raise UserError(f"table {table.number}: several training runs of one kind: {folders}; choose by --training")
    return 100 * (1 - fitting[0].step_seconds / full[0].step_seconds) if fitting else None


def _group(table: PaperTable, row: PaperRow) -> str:
    if row is table.baseline:
        return "all tokens" if row.tokens is None else f"all {row.tokens} tokens"
    if row.tokens is None or table.baseline.tokens is None:
        return f"{row.tokens} tokens on average"
    return f"{row.tokens} tokens on average ({100 * row.tokens / table.baseline.tokens:.1f} %)"


def _cell(column: str, published: float | None, measured: Measured) -> str:
    digits = HEADINGS[column][1]
    there = EMPTY if published is None else f"{published:.{digits}f}"
    value = measured.values.get(column)
    if value is None:
        return f"{there} → {EMPTY}"
    here = f"{there} → {value:.{digits}f}{'*' if column in measured.partial else ''}"
    return here if published is None else f"{here} ({round(value, digits) - published:+.{digits}f})"


def _records(table: PaperTable, found: Sequence[Measured]) -> list[dict[str, Any]]:
    records = []
    for row, measured in zip(table.rows, found, strict=True):
        for column, published in table.published(row).items():
            value, run = measured.values.get(column), measured.runs.get(column)
            records.append(
                {
                    "table": table.number,
                    "method": row.label,
                    "name": row.method,
                    "tokens": row.tokens,
                    "column": column,
                    "published": published,
                    "measured": value,
                    "difference": None if None in (value, published) else value - published,  # type: ignore[operator]
                    "tokens_measured": measured.tokens,
                    "complete": None if value is None else column not in measured.partial,
                    "model": run and run.model,
                    "questions": run and run.asked,
                    "folder": run and str(run.folder),
                }
            )
    return records
