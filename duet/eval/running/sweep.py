"""Runs models on tasks: one method and budget (`evaluate`), or a grid of them with each model loaded once (`run_grid`).

Finished work is not repeated; several processes share the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from accelerate import PartialState

from duet.config import save_config
from duet.errors import UserError
from duet.eval.asking.answerer import Answerer
from duet.eval.asking.task import Task, read_task
from duet.eval.benchmarks import get
from duet.eval.progress import Progress
from duet.eval.running.grid import FULL, Cell, Grid, find_budget
from duet.eval.running.preflight import check_evaluation, check_grid, check_places
from duet.eval.running.runner import Runner, start_again
from duet.prompt_style import OWN, PromptStyle

GRID_FILE = "grid.yaml"
#: Tower output and features after stage 1 that the runs of a model share.
TOWER_BYTES = 1 << 30


@dataclass(frozen=True)
class Evaluation:
    """One model with one method and budget.

    Attributes:
        model: folder or hub id.
        tasks: names of benchmarks; data: root of their files, or of the only one.
        output: has a folder per task.
        method, budget: as `find_budget` takes them; switches: of `duet.switches.Switches`.
        batch_size: questions answered together; limit: most questions of each task, drawn by `seed` if it has more.
        max_new_tokens: maximum answer length; None: the original evaluation's.
        loading: device, dtype, attn_implementation, revision.
        share: pictures that several questions are about are read once.
        tokenization: `right` or `original`, see `duet.eval.asking.original`.
        style: how questions are put, where that is not the family's own way.
    """

    model: str
    tasks: Sequence[str]
    data: str
    output: str
    method: str = "none"
    budget: Any = None
    switches: Mapping[str, str] = field(default_factory=dict)
    batch_size: int = 1
    limit: int | None = None
    seed: int = 0
    max_new_tokens: int | None = None
    loading: Mapping[str, Any] = field(default_factory=dict)
    share: bool = True
    tokenization: str = "right"
    style: PromptStyle = OWN


def evaluate(wanted: Evaluation, *, overwrite: bool = False) -> list[dict[str, Any]]:
    """Run one evaluation; returns the content of each task's metrics.json.

    Raises:
        UserError: unusable files, names or budgets; results of other settings in the output folder.
    """
    names = [get(task).name for task in wanted.tasks]
    size = (wanted.limit, wanted.seed)
    compression = (wanted.method, wanted.budget, wanted.switches)
    check_evaluation(wanted.model, *compression, names, wanted.data, size, wanted.style.fps)
    check_places(wanted.output, (Path(wanted.output, name) for name in names))
    processes = find_processes(wanted.loading)
    answerer = _load(wanted.model, wanted.loading, processes, wanted.tokenization)
    budget = find_budget(wanted.budget, wanted.method, answerer.backbone, wanted.switches.get("ratio_base"))
    answerer.compress(wanted.method, budget, **wanted.switches)
    answerer.style = wanted.style
    asked = (wanted.batch_size, wanted.limit, wanted.max_new_tokens, wanted.seed, wanted.style)
    tasks = [read_task(answerer, task, wanted.data, *asked) for task in wanted.tasks]
    progress = _progress(sum(len(task.samples) for task in tasks), processes)
    runner = Runner(answerer, processes, progress, wanted.share)
    try:
        return _run_tasks(runner, tasks, Path(wanted.output), wanted.method, wanted.switches, overwrite)
    finally:
        progress.close()


def run_grid(grid: Grid, *, overwrite: bool = False) -> list[Cell]:
    """Run all cells of a grid on all its tasks.

    Args:
        grid: the experiment.
        overwrite: delete what an earlier run left in the folders.

    Returns:
        the cells; their results are in `grid.folder(cell) / task / metrics.json`.

    Raises:
        UserError: as `evaluate`.
    """
    processes = find_processes(grid.loading)
    check_grid(grid)
    if processes.is_main_process:
        save_config(grid, Path(grid.output) / GRID_FILE)
    cells = list(grid.cells())
    progress: Progress | None = None
    for model, group in groupby(cells, key=lambda cell: cell.model):
        answerer = _load(grid.models[model], grid.loading, processes)
        base = grid.switches.get("ratio_base")
        budgets = {
            cell: find_budget(grid.budgets.get(cell.budget), cell.method, answerer.backbone, base) for cell in group
        }
        size = (grid.batch_size, grid.limit, grid.max_new_tokens, grid.seed)
        tasks = [read_task(answerer, task, grid.data, *size) for task in grid.tasks]
        progress = progress or _progress(len(cells) * sum(len(task.samples) for task in tasks), processes)
        runner = Runner(answerer, processes, progress, grid.share)
        if grid.share and len(budgets) > 2:  # several compressed runs; the first one is the stock model
            answerer.gallery.tower_bytes = TOWER_BYTES
        for cell, budget in budgets.items():
            answerer.compress(cell.method, budget, **grid.switches)
            switches = grid.switches if cell.budget != FULL else {}
            _run_tasks(runner, tasks, grid.folder(cell), str(cell), switches, overwrite)
    if progress is not None:
        progress.close()
    return cells


def find_processes(loading: Mapping[str, Any]) -> PartialState:
    """The processes started by `torchrun` or `accelerate launch`; else one."""
    return PartialState(cpu=str(loading.get("device") or "").startswith("cpu"))


def _load(model: str, loading: Mapping[str, Any], processes: PartialState, tokenization: str = "right") -> Answerer:
    chosen = loading.get("device")
    if chosen is not None and processes.num_processes > 1 and ":" in str(chosen):
        raise UserError(f"device {chosen} for {processes.num_processes} processes: leave the number to the launcher")
    device = chosen if chosen is not None and processes.num_processes == 1 else str(processes.device)
    return Answerer.load(model, tokenization, **{**loading, "device": device})


def _progress(total: int, processes: PartialState) -> Progress:
    return Progress(total, processes.is_main_process, processes.num_processes)


def _run_tasks(
    runner: Runner, tasks: list[Task], folder: Path, label: str, switches: Mapping[str, str], overwrite: bool
) -> list[dict[str, Any]]:
    results = []
    for task in tasks:
        place = folder / task.benchmark.name
        if overwrite:
            start_again(place, runner.processes)
        runner.progress.name(f"{label} {task.benchmark.name}")
        results.append(runner.run(task, place, switches))
    return results
