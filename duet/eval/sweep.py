"""Runs a grid: each model is loaded once, each task read once, and what is done already is not done again."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from accelerate import PartialState

from duet.config import save_config
from duet.eval.answerer import Answerer
from duet.eval.grid import Cell, Grid, find_budget
from duet.eval.progress import Progress
from duet.eval.questions import Questions, ask
from duet.eval.runner import Runner, start_again

GRID_FILE = "grid.yaml"


def run_grid(grid: Grid, *, overwrite: bool = False) -> list[Cell]:
    """Run all cells of a grid on all its tasks, in as many processes as the launcher started.

    Args:
        grid: the experiment.
        overwrite: throw away what an earlier run left in the folders.

    Returns:
        the cells, whose results lie in `grid.folder(cell) / task / metrics.json`.

    Raises:
        UserError: files, names or budgets that do not fit; results of other settings in the folders.
    """
    processes = PartialState(cpu=grid.loading.get("device") == "cpu")
    loading = {**grid.loading, "device": grid.loading.get("device") or str(processes.device)}
    if processes.is_main_process:
        save_config(grid, Path(grid.output) / GRID_FILE)
    cells = list(grid.cells())
    progress: Progress | None = None
    for model, group in groupby(cells, key=lambda cell: cell.model):
        answerer = Answerer.load(grid.models[model], **loading)
        budgets = {cell: find_budget(grid.budgets.get(cell.budget), cell.method, answerer.backbone) for cell in group}
        tasks = [
            ask(answerer, task, grid.data, grid.batch_size, grid.limit, grid.max_new_tokens) for task in grid.tasks
        ]
        if progress is None:
            total = len(cells) * sum(len(task.samples) for task in tasks)
            progress = Progress(total, processes.is_main_process, processes.num_processes)
        runner = Runner(answerer, processes, progress)
        for cell, budget in budgets.items():
            answerer.compress(cell.method, budget, **grid.switches)
            _run_cell(runner, grid, cell, tasks, overwrite)
    if progress is not None:
        progress.close()
    return cells


def _run_cell(runner: Runner, grid: Grid, cell: Cell, tasks: list[Questions], overwrite: bool) -> None:
    for questions in tasks:
        folder = grid.folder(cell) / questions.benchmark.name
        if overwrite:
            start_again(folder, runner.processes)
        runner.progress.name(f"{cell} {questions.benchmark.name}")
        runner.run(questions, folder, grid.switches)
