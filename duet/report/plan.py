"""The commands that fill a table of the paper.

    duet table 1 --plan                          # one `duet eval` per row
    duet table 3 --plan --recipe RECIPE.yaml     # rows with a model of their own: training, then `duet eval`

What this version cannot run is a comment.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from duet.errors import UserError
from duet.registry import METHODS
from duet.report.paper import PaperRow, PaperTable
from duet.report.runs import JUDGED


@dataclass(frozen=True)
class Plan:
    """Where things are, and how a table is to be run.

    Attributes:
        output: folder of the results; default: `results_folder(table)`.
        data: root of the benchmarks.
        model: in place of the paper's.
        recipe: training recipe of the rows' models (Tables 3 and 6).
        batch_size: questions at a time.
        processes: on how many devices.
    """

    output: str | None = None
    data: str = "./playground/data/eval"
    model: str | None = None
    recipe: str | None = None
    batch_size: int = 16
    processes: int = 1


def results_folder(table: PaperTable) -> str:
    """Where the results of a table go: tables of one backbone share their runs."""
    return f"outputs/paper/{table.backbone}{'_trained' if table.trained else ''}"


def commands(table: PaperTable, plan: Plan) -> Iterator[str]:
    """The shell commands, line by line; comments say what can't be run.

    Raises:
        UserError: a table of trained models without a recipe.
    """
    if table.budgets:
        yield from (f"duet budget show {name}" for name in table.budgets)
        return
    if table.trained and plan.recipe is None:
        raise UserError(f"table {table.number} compares trained models: name the recipe that trains them (--recipe)")
    for row in table.rows:
        if row.method in METHODS:
            yield from _row_commands(table, row, plan)
        else:
            yield f"# {row.label} at {row.tokens} tokens: not among the methods of this version (duet methods)"


def _row_commands(table: PaperTable, row: PaperRow, plan: Plan) -> Iterator[str]:
    compressed = row.method != "none"
    name = f"{row.method}-{row.tokens}" if compressed else row.method
    folder = f"{plan.output or results_folder(table)}/{name}"
    model = plan.model or table.model
    if table.trained and compressed:
        model = f"checkpoints/{table.backbone}-{name}"
        loop = [f"compression.method={row.method}", f"compression.budget={table.budget(row)}"]
        yield _launched(["duet.train.run", str(plan.recipe), *loop, f"training.output_dir={model}"], plan.processes)
    budget = ["--budget", table.budget(row)] if compressed else []
    words = ["--model", model, "--method", row.method, *budget, "--tasks", ",".join(table.tasks), "--data", plan.data]
    words += ["--batch-size", str(plan.batch_size), "--output", folder]
    yield evaluation(words, plan.processes)
    for task in table.tasks:
        if task in JUDGED:
            files = ["--predictions", f"{folder}/{task}/predictions.jsonl", "--json", f"{folder}/{task}/judge.json"]
            judge = '--judge-url "$JUDGE_URL" --judge-model "$JUDGE_MODEL"'
            yield f"{shlex.join(['duet', 'judge', task, '--data', plan.data, *files])} {judge}"


def evaluation(words: list[str], processes: int = 1) -> str:
    """`duet eval` with these arguments, on one or several devices."""
    return (
        shlex.join(["duet", "eval", *words])
        if processes == 1
        else _launched(["duet.cli.main", "eval", *words], processes)
    )


def _launched(words: list[str], processes: int) -> str:
    start = ["python"] if processes == 1 else ["accelerate", "launch", "--num_processes", str(processes)]
    return shlex.join([*start, "-m", *words])
