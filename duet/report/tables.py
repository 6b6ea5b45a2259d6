"""The table of an experiment, shaped like the paper's Table 1: rows are methods under each budget, columns are tasks.

render(grid_table(grid, read_results(grid)), "markdown")
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from duet.budget import find_row
from duet.eval.benchmarks import get
from duet.eval.running.grid import FULL, Grid
from duet.method_table import find_method
from duet.report.experiment import Result
from duet.report.render import Table

NOTHING = "–"
#: Marks values measured on a subset of the questions.
SUBSET = "*"
#: Names as in papers.
NAMES = {
    "pope": "POPE",
    "gqa": "GQA",
    "textvqa": "TextVQA",
    "mme": "MME",
    "scienceqa": "SQA",
    "seed": "SEED",
}
#: Tokens by which a run may miss its requested average without a note.
SLACK = 0.75


def grid_table(grid: Grid, results: Sequence[Result]) -> Table:
    """Scores per task, average percentage with its interval, tokens, milliseconds and operations of every run."""
    tasks = [get(task).name for task in grid.tasks]
    parts = {task for result in results for task in result.subsets}
    header = ["Method", *(NAMES.get(task, task) + SUBSET * (task in parts) for task in tasks)]
    header += ["Avg. %" + SUBSET * bool(parts) + " [95 %]", "Tokens", "Prefill ms", "GFLOPs"]
    rows: list[list[str]] = []
    heading = None
    for result in results:
        if _heading(grid, result) != heading:
            heading = _heading(grid, result)
            rows.append([heading])
        rows.append(_cells(result, tasks))
    records = [_record(result, tasks) for result in results]
    return Table("Accuracy at equal average tokens", header, rows, records, list(_notes(grid, results)))


def _heading(grid: Grid, result: Result) -> str:
    cell = result.cell
    if cell.budget == FULL:
        return f"{cell.model}: all visual tokens"
    wanted = asked_average(grid.budgets[cell.budget])
    return f"{cell.model}: {cell.budget}" + ("" if wanted is None else f", {wanted:.1f} tokens")


def asked_average(budget: Any) -> float | None:
    """The average tokens of a grid's budget; None if it gives numbers instead."""
    if isinstance(budget, str):
        return find_row(budget).target
    if isinstance(budget, (int, float)):
        return float(budget)
    return budget.get("average")


def _cells(result: Result, tasks: list[str]) -> list[str]:
    average = NOTHING if result.percent is None else f"{result.percent:.1f}"
    if result.ends is not None:
        average += " [{:.1f}, {:.1f}]".format(*result.ends)
    scores = [_number(result.scores.get(task)) for task in tasks]
    return [
        result.cell.method,
        *scores,
        average,
        *map(_number, (result.tokens, result.prefill_ms)),
        _number(result.gflops, 3),
    ]


def _number(value: float | None, digits: int = 1) -> str:
    return NOTHING if value is None else f"{value:.{digits}f}"


def _record(result: Result, tasks: list[str]) -> dict[str, Any]:
    low, high = result.ends or (None, None)
    return {
        "model": result.cell.model,
        "method": result.cell.method,
        "budget": result.cell.budget,
        **{task: result.scores.get(task) for task in tasks},
        "percent": result.percent,
        "percent_low": low,
        "percent_high": high,
        "tokens": result.tokens,
        "prefill_ms": result.prefill_ms,
        "gflops": result.gflops,
        "subset": {task: part.as_json() for task, part in result.subsets.items()} or None,
    }


def _notes(grid: Grid, results: Sequence[Result]) -> Iterator[str]:
    yield (
        f"Avg. %: mean over the tasks of score / score of {results[0].cell.model} with all tokens; in brackets the "
        "95 % interval of a bootstrap over pictures, paired with it."
    )
    yield "Tokens: mean over the layers of the visual tokens that enter a layer, counted in the caches of the answers."
    yield (
        f"Prefill: tower, projector, compression and language model up to the first token, per question in batches of "
        f"{grid.batch_size}, median over batches. GFLOPs: the same by the formula of `duet budget show`."
    )
    if grid.switches:
        switches = ", ".join(f"{name}={choice}" for name, choice in grid.switches.items())
        yield f"All methods ran with the non-default switches {switches} (`duet.registry.Switches`)."
    subsets = {task: part for result in results for task, part in result.subsets.items()}
    if subsets:
        parts = ", ".join(f"{NAMES.get(task, task)} {part.questions} of {part.of}" for task, part in subsets.items())
        seeds = ", ".join(sorted({str(part.seed) for part in subsets.values()}))
        yield f"{SUBSET} Subsets of the questions, drawn evenly over categories (seed {seeds}): {parts}."
    whole = [found for result in results for found in result.found.values()]
    if whole:
        yield _measured_on(whole)
    missing = sum(len(result.found) < len(grid.tasks) for result in results)
    if missing:
        yield f"{NOTHING}: missing; {missing} of {len(results)} runs are not complete."
    yield from _exceptions(grid, results)


def _measured_on(whole: Sequence[Any]) -> str:
    asked = {NAMES.get(found["task"], found["task"]): found["counts"]["asked"] for found in whole}
    counts = {name: sum(found["counts"][name] for found in whole) for name in ("failed", "missing", "ties")}
    places = sorted({f"{f['surroundings']['device']}, {f['settings']['dtype']}" for f in whole})
    threads = sorted({str(found["surroundings"]["threads"]) for found in whole})
    return (
        f"Questions: {', '.join(f'{name} {number}' for name, number in asked.items())}. Of all answers "
        f"{counts['missing']} are missing ({counts['failed']} failed), {counts['ties']} depend on tied logits. "
        f"Measured on {'; '.join(places)}, {' or '.join(threads)} thread(s)."
    )


def _exceptions(grid: Grid, results: Sequence[Result]) -> Iterator[str]:
    """Runs whose average differs from their budget's."""
    found: dict[str, list[str]] = {}
    for result in results:
        cell = result.cell
        wanted = None if cell.budget == FULL else asked_average(grid.budgets[cell.budget])
        if wanted is not None and result.tokens is not None and abs(result.tokens - wanted) > SLACK:
            missed = f"{cell.method} at {cell.budget} has {result.tokens:.1f} tokens instead of {wanted:.1f}"
            if result.tokens > wanted and find_method(cell.method).stages == (2,):
                missed += ": without stage 1 all tokens enter the first layers"
            found.setdefault(missed, []).append(cell.model)
    yield from (f"{missed} ({', '.join(models)})." for missed, models in found.items())
