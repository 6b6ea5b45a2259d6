"""Seconds per step of training runs: folders with `recipe.yaml`, `metrics.jsonl` and `ledger.json` of `duet.train.run`.

Start-up, saving and evaluating do not count, waiting for data does. Runs of older versions have no ledger: theirs is
the median over the log.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path

from duet.config import read_mapping
from duet.errors import UserError
from duet.eval.reading import mapping_of, number_of, read_lines
from duet.files import read_json
from duet.report.metrics import method_of


@dataclass(frozen=True)
class TrainingRun:
    """One training run.

    Attributes:
        folder: of recipe.yaml and metrics.jsonl.
        method: canonical name.
        visual_tokens: of a picture, on average over the layers.
        step_seconds: mean by the ledger, else median over the log lines.
    """

    folder: Path
    method: str
    visual_tokens: float
    step_seconds: float


def find_trainings(folder: Path) -> list[TrainingRun]:
    """All training runs below a folder whose log has times.

    Raises:
        UserError: no such folder, or a file in it that cannot be used.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of training runs")
    logs = [path for path in sorted(folder.rglob("metrics.jsonl")) if path.with_name("recipe.yaml").exists()]
    return [run for path in logs if (run := _read(path)) is not None]


def _read(path: Path) -> TrainingRun | None:
    lines = [(f"{path}:{number}", line) for number, line in read_lines(path)]
    timed = [
        (number_of(line, "step_seconds", where), number_of(line, "visual_tokens", where))
        for where, line in lines
        if "step_seconds" in line
    ]
    file = path.with_name("recipe.yaml")
    recipe = read_mapping(file)
    compression = mapping_of(recipe, "compression", file)
    method = method_of(compression, f"{file}: compression")
    if not timed:
        return None
    if min(seconds for seconds, _ in timed) <= 0:
        raise UserError(f"{path}: step_seconds is not above 0; was the file changed?")
    seconds, tokens = (statistics.median(column) for column in zip(*timed, strict=True))
    return TrainingRun(path.parent, method, tokens, _by_ledger(path.with_name("ledger.json")) or seconds)


def _by_ledger(path: Path) -> float | None:
    if not path.is_file():
        return None
    whole = mapping_of(read_json(path, UserError, "ledger"), "total", path)
    steps = number_of(whole, "steps", path)
    spent = sum(number_of(whole, f"{kind}_seconds", path) for kind in ("training", "waiting"))
    return spent / steps if steps > 0 and spent > 0 else None
