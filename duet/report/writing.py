"""Writes a sweep's tables and plot next to its results: `table.md`, `table.json`, `accuracy.png`."""

from __future__ import annotations

from pathlib import Path

from duet.eval.running.answer_files import replace_file
from duet.files import check_output_file, check_output_folder
from duet.report.bootstrap import DRAWS
from duet.report.experiment import read_grid, read_results
from duet.report.plots import draw_accuracy
from duet.report.render import Table, render
from duet.report.tables import grid_table

FILES = {"table.md": "markdown", "table.json": "json"}
PLOT, DPI = "accuracy", 160


def write_report(folder: Path, draws: int = DRAWS, form: str = "png") -> Table:
    """Write table and plot of a sweep into its folder.

    Args:
        folder: of the sweep.
        draws: of the bootstrap; 0 leaves the intervals out.
        form: of the plot: png, pdf or svg.

    Raises:
        UserError: no sweep in the folder, or missing benchmark files.
    """
    grid = read_grid(folder)
    check_output_folder(folder)
    plot = f"{PLOT}.{form}"
    for name in (*FILES, plot):
        check_output_file(folder / name)
    results = read_results(grid, draws)
    table = grid_table(grid, results)
    for name, kind in FILES.items():
        replace_file(folder / name, render(table, kind))
    draw_accuracy(results, next(iter(grid.models))).savefig(folder / plot, dpi=DPI)
    return table
