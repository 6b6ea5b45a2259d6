"""Seconds per step of training runs: folders with the `recipe.yaml` and `metrics.jsonl` of `duet.train.run`."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path

import yaml

from duet.errors import UserError
from duet.method_table import find_method


@dataclass(frozen=True)
class TrainingRun:
    """One training run.

    Attributes:
        folder: of recipe.yaml and metrics.jsonl.
        method: canonical name.
        visual_tokens: of a picture, on average over the layers.
        step_seconds: median over the log lines.
    """

    folder: Path
    method: str
    visual_tokens: float
    step_seconds: float


def find_trainings(folder: Path) -> list[TrainingRun]:
    """All training runs below a folder whose log has times."""
    logs = [path for path in sorted(folder.rglob("metrics.jsonl")) if path.with_name("recipe.yaml").exists()]
    return [run for path in logs if (run := _read(path)) is not None]


def _read(path: Path) -> TrainingRun | None:
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        recipe = yaml.safe_load(path.with_name("recipe.yaml").read_text(encoding="utf-8"))
        timed = [(line["step_seconds"], line["visual_tokens"]) for line in lines if "step_seconds" in line]
        method = find_method(recipe["compression"]["method"]).name
    except (KeyError, TypeError, json.JSONDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path.parent}: not a training run ({type(error).__name__}: {error})") from error
    if not timed:
        return None
    seconds, tokens = (statistics.median(column) for column in zip(*timed, strict=True))
    return TrainingRun(path.parent, method, tokens, seconds)
