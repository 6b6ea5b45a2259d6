"""`duet table methods`: every method at equal average tokens, with the positions of its release and with positions
kept.

Compares two sweeps of one grid (configs/eval/methods.yaml): `released` and `kept` in one folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from duet.errors import UserError
from duet.eval.running.grid import FULL, Grid
from duet.method_table import find_method
from duet.report.experiment import read_grid, read_results
from duet.report.render import Table
from duet.report.tables import NOTHING, asked_average

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from duet.report.experiment import Result

GRID = "configs/eval/methods.yaml"
RELEASED, KEPT = "released", "kept"
SHARES = ("Released positions, % [95 %]", "Positions kept, % [95 %]")
HEADER = ("Method", "Stages", *SHARES, "Tokens", "Prefill ms", "GFLOPs")


def commands(folder: str, overrides: Sequence[str] = ()) -> list[str]:
    """The commands that fill the table."""
    more = "".join(f" {override}" for override in overrides)
    return [
        f"duet sweep {GRID} output={folder}/{RELEASED}{more}",
        f"duet sweep {GRID} switches.positions=keep output={folder}/{KEPT}{more}",
    ]


def methods_table(folder: Path, rows: Sequence[str] = ()) -> Table:
    """Score in percent of the full model with its paired interval, tokens, time and operations, best methods first.

    Args:
        folder: of the sweeps `released` and `kept`; the second may be missing.
        rows: only these methods; empty for all.

    Raises:
        UserError: no sweep, two different models, or a method that was not run.
    """
    grid = read_grid(folder / RELEASED)
    released = read_results(grid)
    kept = read_results(_same(grid, folder)) if (folder / KEPT).is_dir() else []
    wanted = {find_method(name).name for name in rows}
    absent = wanted - {find_method(result.cell.method).name for result in released}
    if absent:
        raise UserError(f"{folder / RELEASED} holds no results of {', '.join(sorted(absent))}")
    other = {(result.cell.method, result.cell.budget): result for result in kept}
    shown: list[list[str]] = []
    records: list[dict[str, Any]] = []
    for budget in grid.budgets:
        results = [result for result in released if result.cell.budget == budget]
        pairs = [(result, other.get((result.cell.method, budget))) for result in results]
        pairs = [pair for pair in pairs if not wanted or find_method(pair[0].cell.method).name in wanted]
        pairs.sort(key=lambda pair: -max((one.percent or 0.0) for one in pair if one is not None))
        average = asked_average(grid.budgets[budget])
        shown.append([budget + ("" if average is None else f", {average:.1f} tokens")])
        shown += [_cells(*pair) for pair in pairs]
        records += [_record(*pair) for pair in pairs]
    notes = list(_notes(grid, released, kept))
    return Table("Every method at equal average tokens", list(HEADER), shown, records, notes)


def _same(grid: Grid, folder: Path) -> Grid:
    kept = read_grid(folder / KEPT)
    for name in ("models", "budgets", "tasks", "data", "limit", "seed"):
        if getattr(grid, name) != getattr(kept, name):
            raise UserError(f"{folder}: {RELEASED} and {KEPT} differ in {name}; sweep both with the same settings")
    return kept


def _keeps(method: str) -> bool:
    """Whether the released method keeps positions, so both columns are the same run."""
    return find_method(method).positions == "keep"


def _percent(result: Result | None) -> str:
    if result is None or result.percent is None:
        return NOTHING
    ends = "" if result.ends is None else " [{:.1f}, {:.1f}]".format(*result.ends)
    return f"{result.percent:.1f}{ends}"


def _number(value: float | None, digits: int = 1) -> str:
    return NOTHING if value is None else f"{value:.{digits}f}"


def _cells(released: Result, kept: Result | None) -> list[str]:
    method = find_method(released.cell.method)
    stages = " + ".join(map(str, method.stages))
    both = "the same" if _keeps(method.name) else _percent(kept)
    numbers = (_number(released.tokens), _number(released.prefill_ms), _number(released.gflops, 3))
    return [released.cell.method, stages, _percent(released), both, *numbers]


def _record(released: Result, kept: Result | None) -> dict[str, Any]:
    same = _keeps(released.cell.method)
    second = released if same else kept
    return {
        "method": released.cell.method,
        "budget": released.cell.budget,
        "released": released.percent,
        "released_ends": released.ends,
        "kept": second.percent if second is not None else None,
        "kept_ends": second.ends if second is not None else None,
        "tokens": released.tokens,
        "prefill_ms": released.prefill_ms,
        "gflops": released.gflops,
    }


def _notes(grid: Grid, released: Sequence[Result], kept: Sequence[Result]) -> Iterator[str]:
    full = next(result for result in released if result.cell.budget == FULL)
    yield (
        f"%: mean over {len(full.found)} tasks of score / score of {full.cell.model} with all tokens; in brackets the "
        "95 % interval of a bootstrap over pictures, paired with it. Sorted by the better of the two columns."
    )
    numbers = (_number(full.tokens), _number(full.prefill_ms), _number(full.gflops, 3))
    yield "All tokens: {} tokens, prefill {} ms, {} GFLOPs.".format(*numbers)
    yield "Tokens, prefill and GFLOPs are those of the first column; positions do not change them."
    missing = sum(len(result.found) < len(grid.tasks) for result in (*released, *kept))
    if missing:
        yield f"{NOTHING}: missing; {missing} runs are not complete."
    for result in released:
        cell, tokens = result.cell, result.tokens
        wanted = None if cell.budget == FULL else asked_average(grid.budgets[cell.budget])
        if wanted is not None and tokens is not None and abs(tokens - wanted) > 1:
            yield f"{cell.method} at {cell.budget} has {tokens:.1f} tokens instead of {wanted:.1f}."
