"""The commands that fill a table of the paper.

    duet table 1 --plan                          # one `duet eval` per row
    duet table 1 --plan --tokens 64 --rows fastv,duet_c
    duet table 3 --plan --processes 8            # rows with their own model: both stages of training, then `duet eval`
    duet table 3 --plan --recipe RECIPE.yaml     # trained by this recipe alone
    duet table 1 --run                           # the same commands, run one after the other

A model of another size than the paper's gets the same shares of its tokens: 64 of 576 are 11.1 of 100. Rows that
cannot be run are comments.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duet.budget import Backbone, Budget, find_backbone, find_row
from duet.config import read_mapping
from duet.errors import UserError
from duet.method_table import METHODS
from duet.report.paper import TIME_SAVED, PaperRow, PaperTable
from duet.report.runs import JUDGED

#: The two stages that train a row's model, with their DeepSpeed file for several processes.
STAGES = {
    "llava15": (
        ("configs/train/llava15_pretrain.yaml", "configs/deepspeed/zero2.json"),
        ("configs/train/llava15_finetune.yaml", "configs/deepspeed/zero3.json"),
    )
}
#: Processes that the recipes' batch sizes are for.
PROCESSES = 8
#: Exit code of `duet eval` and `duet judge` if some questions have no answer: the table marks them.
PARTIAL = 3


@dataclass(frozen=True)
class Plan:
    """Paths and settings for running a table.

    Attributes:
        output: folder of the results; default: `results_folder(table)`.
        data: root of the benchmarks.
        model: instead of the paper's.
        recipe: training recipe of the rows' models (Tables 3 and 6); None: the paper's two stages.
        batch_size: questions at a time.
        processes: number of devices.
    """

    output: str | None = None
    data: str = "./playground/data/eval"
    model: str | None = None
    recipe: str | None = None
    batch_size: int = 16
    processes: int = 1


def results_folder(table: PaperTable) -> str:
    """Folder of a table's results: tables of one backbone share their runs."""
    return f"outputs/paper/{table.backbone}{'_trained' if table.trained else ''}"


def commands(table: PaperTable, plan: Plan) -> Iterator[str]:
    """The shell commands, line by line; rows that cannot be run are comments.

    Raises:
        UserError: a recipe for another model without `model`, or another model without a recipe.
    """
    if table.budgets:
        yield from (f"duet budget show {name}" for name in table.budgets)
        return
    sizes = _sizes(table, plan)
    if table.trained and plan.recipe is None and sizes is not None:
        raise UserError(f"{plan.model} is another model than the paper's: give the recipe that trains it (--recipe)")
    for row in table.rows:
        place = f"# {row.label}" + ("" if row.tokens is None else f" at {row.tokens} tokens")
        if row.method not in METHODS:
            yield f"{place}: method not available in this version (duet methods)"
            continue
        try:
            yield from list(_row_commands(table, row, plan, sizes))
        except UserError as error:
            yield f"{place}: {error}"


def run_commands(lines: Iterable[str]) -> None:
    """Run planned commands one after the other, with this interpreter, and print them to standard error.

    Raises:
        UserError: one of them failed; the later ones were not started.
    """
    for line in lines:
        words = [os.path.expandvars(word) for word in shlex.split(line, comments=True)]
        if not words:
            sys.stderr.write(f"{line}\n")
            continue
        unset = [name for word in words for name in re.findall(r"\$([A-Z_]+)", word)]
        if unset:
            raise UserError(f"set {' and '.join(unset)} in the environment: `{line}` needs it")
        sys.stderr.write(f"{line}\n")
        command = shutil.which("duet")
        starts = {
            "duet": [sys.executable, "-m", "duet.cli.main"] if command is None else [command],
            "python": [sys.executable],
        }
        run = [*starts.get(words[0], words[:1]), *words[1:]]
        code = subprocess.run(run, stdin=subprocess.DEVNULL, check=False).returncode
        if code not in (0, PARTIAL):
            raise UserError(f"`{line}` ended with {code}; repeat the command to continue there")


def _sizes(table: PaperTable, plan: Plan) -> Backbone | None:
    """Sizes of the model to be run; None if the budgets of the paper's model fit it."""
    trained = _recipe_sizes(plan.recipe) if table.trained and plan.recipe else None
    if trained is not None and _other(table, trained) and plan.model is None:
        raise UserError(
            f"{plan.recipe} trains another model than the paper's: give the reference model with all tokens "
            "with --model"
        )
    found = trained or _folder_sizes(plan.model)
    return found if found is not None and _other(table, found) else None


def _recipe_sizes(path: str) -> Backbone | None:
    """Sizes of the model that a recipe trains, by its folder or its budget's name; None if unknown."""
    recipe = read_mapping(path)
    model, compression = (recipe.get(name) or {} for name in ("model", "compression"))
    if not isinstance(model, dict) or not isinstance(compression, dict):
        raise UserError(f"{path}: model and compression must be sections of keys and values")
    found = _folder_sizes(model.get("model_name_or_path"))
    name = compression.get("budget")
    return find_backbone(find_row(name).backbone) if found is None and isinstance(name, str) else found


def _folder_sizes(model: Any) -> Backbone | None:
    """Sizes of a local checkpoint; None for a hub id."""
    if not isinstance(model, str) or not Path(model, "config.json").is_file():
        return None
    return Backbone.from_config(model)


def _other(table: PaperTable, sizes: Backbone) -> bool:
    paper = find_backbone(table.backbone)
    same = (sizes.patches, sizes.pictures, sizes.decoder.layers) == (
        paper.patches,
        paper.pictures,
        paper.decoder.layers,
    )
    return not same


def _budget(table: PaperTable, row: PaperRow, sizes: Backbone | None) -> str:
    """The budget for a command: a name, or the counts for the same share of another model's tokens.

    Raises:
        UserError: the method cannot have that share, or the paper's model has no fixed number of tokens.
    """
    if sizes is None:
        return table.budget(row)
    if row.tokens is None or table.baseline.tokens is None or sizes.patches is None:
        raise UserError(f"table {table.number} states no share of the tokens: run it on {table.model}")
    average = sizes.full * row.tokens / table.baseline.tokens
    budget = Budget.solve(average, sizes, schedule=METHODS[row.method].schedule)
    fields = {name: value for name, value in vars(budget).items() if value != getattr(Budget(), name)}
    shown = ", ".join(f"{name}: {list(value) if isinstance(value, tuple) else value}" for name, value in fields.items())
    return f"{{{shown}}}"


def _row_commands(table: PaperTable, row: PaperRow, plan: Plan, sizes: Backbone | None) -> Iterator[str]:
    compressed = row.method != "none"
    name = f"{row.method}-{row.tokens}" if compressed else row.method
    folder = f"{plan.output or results_folder(table)}/{name}"
    model = plan.model or table.model
    budget = _budget(table, row, sizes) if compressed else ""
    if table.trained and (compressed or TIME_SAVED in table.columns):
        trained = f"checkpoints/{table.backbone if sizes is None else Path(model).name}-{name}"
        loop = [f"compression.method={row.method}", f"compression.budget={budget or 'null'}"]
        yield from _training(table, plan, loop, trained)
        model = trained if compressed else model
    words = ["--model", model, "--method", row.method, *(["--budget", budget] if compressed else [])]
    words += ["--tasks", ",".join(table.tasks), "--data", plan.data]
    words += ["--batch-size", str(plan.batch_size), "--output", folder]
    yield evaluation(words, plan.processes)
    for task in table.tasks:
        if task in JUDGED:
            files = ["--predictions", f"{folder}/{task}/predictions.jsonl", "--json", f"{folder}/{task}/judge.json"]
            judge = '--judge-url "$JUDGE_URL" --judge-model "$JUDGE_MODEL"'
            yield f"{shlex.join(['duet', 'judge', task, '--data', plan.data, *files])} {judge}"


def _training(table: PaperTable, plan: Plan, loop: list[str], output: str) -> Iterator[str]:
    """Commands that train a model: by the given recipe, else in the paper's two stages, both under compression."""
    if plan.recipe is not None:
        yield _launched(["duet.train.run", plan.recipe, *loop, f"training.output_dir={output}"], plan.processes)
        return
    before = f"{output}-pretrain"
    for place, (recipe, zero) in enumerate(STAGES[table.backbone]):
        words = [recipe, *loop, f"training.output_dir={output if place else before}"]
        words += [f"model.projector={before}/mm_projector.bin"] if place else []
        words += [f"training.deepspeed={zero}"] if plan.processes > 1 else []
        if plan.processes != PROCESSES:  # the same rows per step
            words.append(f"training.gradient_accumulation_steps={max(PROCESSES // plan.processes, 1)}")
        yield _launched(["duet.train.run", *words], plan.processes)


def trained_folders(table: PaperTable) -> list[Path]:
    """Where the planned commands train a table's models, as far as they exist."""
    names = [row.method if row.method == "none" else f"{row.method}-{row.tokens}" for row in table.rows]
    return [path for name in names if (path := Path("checkpoints") / f"{table.backbone}-{name}").is_dir()]


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
