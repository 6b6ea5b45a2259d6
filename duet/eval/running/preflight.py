"""Checks before a model is loaded: files, names, budgets and output folders.

A grid runs for hours; what would stop it later is reported in the first second.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from duet.budget import Backbone, resolve_budget
from duet.budget.fields import check_returns
from duet.checkpoints.adapters import base_of, is_adapter
from duet.errors import UserError
from duet.eval.benchmarks import get
from duet.eval.running.grid import FULL, Grid, find_budget
from duet.eval.scoring.benchmark import FileBenchmark
from duet.files import check_output_file, check_output_folder
from duet.method_table import find_method
from duet.shipped import find_small_model
from duet.switches import check_switches

#: Limit and seed.
Size = tuple[int | None, int]
#: Files in a task's folder.
FILES = ("run.json", "predictions.jsonl", "timing.jsonl", "rows.jsonl", "metrics.json")


def check_places(output: str | Path, folders: Iterable[Path], files: Iterable[str] = FILES) -> None:
    """Check that results can be written.

    Args:
        output: created if missing.
        folders: below it, one per task; only checked if they exist.
        files: written into each.

    Raises:
        UserError: something in the way, read-only, or a full disk.
    """
    output = Path(output)
    check_output_folder(output)
    for folder in folders:
        for place in (*reversed(folder.relative_to(output).parents), folder.relative_to(output)):
            if (output / place).exists() and not (output / place).is_dir():
                raise UserError(f"{output / place} is in the way: results go into a folder of that name")
        if folder.is_dir():
            check_output_folder(folder)
            for name in files:
                if os.path.lexists(folder / name):
                    check_output_file(folder / name)


def folder_sizes(model: str) -> Backbone | None:
    """Sizes of a local checkpoint; None for a hub id, which is not looked up.

    Raises:
        UserError: a missing path, or an unusable config.json.
    """
    folder = find_small_model(model) or Path(model)
    if folder.is_dir():
        if is_adapter(folder):  # its base may be on the hub, which is not looked up
            base = Path(base_of(folder))
            return Backbone.from_config(str(base)) if base.is_dir() else None
        return Backbone.from_config(str(folder))
    if Path(model).exists() or model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise UserError(f"no checkpoint at {model}: neither a folder nor the id of a model on the hub (OWNER/NAME)")
    return None


def check_evaluation(
    model: str,
    method: str,
    budget: Any,
    switches: Mapping[str, str],
    tasks: Iterable[str],
    data: str,
    size: Size,
    fps: float | None,
) -> None:
    """The checks of one evaluation, see `duet.eval.running.sweep.Evaluation`; `size` is (limit, seed).

    Raises:
        UserError: what is wrong.
    """
    sizes = folder_sizes(model)
    _check_switches(method, switches)
    _check_budget(budget, method, sizes, switches.get("ratio_base"))
    asked = [cast(FileBenchmark, get(task)).load_subset(Path(data), *size)[0] for task in tasks]
    if fps is not None and not any(sample.video for samples in asked for sample in samples):
        raise UserError("--fps would have no effect: none of these questions is about a video")


def missing_data(grid: Grid) -> Iterator[str]:
    """Missing benchmarks, one line each."""
    for task in grid.tasks:
        try:
            cast(FileBenchmark, get(task)).find(Path(grid.data))
        except UserError as error:
            yield f"{task} is missing: {error}"


def grid_problems(grid: Grid) -> Iterator[str]:
    """All other errors in a grid, one line each; creates nothing."""
    for task in grid.tasks:
        benchmark = cast(FileBenchmark, get(task))
        try:
            benchmark.find(Path(grid.data))
        except UserError:
            continue
        try:
            benchmark.load_subset(Path(grid.data), grid.limit, grid.seed)
        except UserError as error:
            yield f"task {task}: {error}"
    for name, path in grid.models.items():
        try:
            sizes = folder_sizes(path)
        except UserError as error:
            yield f"model {name}: {error}"
            continue
        for cell in grid.cells():
            if cell.model == name:
                try:
                    if cell.budget != FULL:
                        _check_switches(cell.method, grid.switches)
                    given = grid.budgets.get(cell.budget)
                    _check_budget(given, cell.method, sizes, grid.switches.get("ratio_base"))
                except UserError as error:
                    yield f"{cell}: {error}"
    above = next((place for place in (Path(grid.output), *Path(grid.output).parents) if os.path.lexists(place)), None)
    try:
        if above == Path(grid.output):
            check_places(grid.output, _places(grid))
        elif above is not None:
            check_output_folder(above)
    except UserError as error:
        yield f"output: {error}"


def check_grid(grid: Grid) -> None:
    """Everything that would stop a run, as one error.

    Raises:
        UserError: there is such a thing.
    """
    found = [*missing_data(grid), *grid_problems(grid)]
    if found:
        more = f" (and {len(found) - 1} more: duet sweep --dry-run lists them)" if len(found) > 1 else ""
        raise UserError(f"{found[0]}{more}")
    check_places(grid.output, _places(grid))


def _places(grid: Grid) -> Iterator[Path]:
    return (grid.folder(cell) / get(task).name for cell in grid.cells() for task in grid.tasks)


def _check_switches(method: str, switches: Mapping[str, Any]) -> None:
    given = {name: value for name, value in switches.items() if name != "companion"}
    check_switches(find_method(method), given)


def _check_budget(given: Any, method: str, sizes: Backbone | None, ratio_base: str | None) -> None:
    """A budget for a model as `duet.attach` takes it; if its sizes are unknown, only whether it is a valid one."""
    if sizes is not None:
        log = logging.getLogger("duet.budget")
        log.disabled = True  # its messages come when the run starts
        try:
            budget = find_budget(given, method, sizes, ratio_base)
        finally:
            log.disabled = False
        parts = find_method(method)
        budget = resolve_budget(budget, parts.schedule, sizes, method=method, ratio_base=ratio_base)
        depth = sizes.decoder.layers
        if parts.pruner is not None and getattr(parts.pruner.factory, "layer", "") == "previous":
            check_returns(budget.absences(depth), budget.layers_for(depth), method)
        if sizes.patches is not None:
            budget.tokens_per_layer(sizes)
    elif isinstance(given, bool) or not isinstance(given, (str, int, float, Mapping, type(None))):
        raise UserError(f"budget {given!r}: give a name, an average or numbers ({{dominant: 170, contextual: 35}})")
