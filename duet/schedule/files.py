"""What `duet schedule` writes: the shape as a budget that every command takes, the curves as JSON, the figure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from duet.schedule.curves import ALL_TOKENS, FEW_TOKENS

if TYPE_CHECKING:
    from duet.budget import Backbone, Schedule
    from duet.schedule.choose import Trial
    from duet.schedule.curves import Curves

WHATS = ("withdrawn", "frozen", "entering", "away", "quartered")
HEADER = """# The shape of a budget, found by duet schedule. Layers are shares of the depth. Any method takes it,
# solved for the target or, with --shape, for another average:
#   duet ask photo.jpg "What is it?" --budget {path}
"""


def shape_fields(shape: Schedule, backbone: Backbone) -> dict[str, Any]:
    """A shape for a file, as `duet.budget.shapes.read_shape` reads it."""
    frozen = list(shape.frozen) if isinstance(shape.frozen, tuple) else shape.frozen
    return {
        "entry": shape.entry,
        "layers": list(shape.layers),
        "ratios": list(shape.ratios_for(backbone)),
        "frozen": frozen,
        "away": [list(span) for span in shape.away],
    }


def row_of(
    trial: Trial, backbone: Backbone, *, average: float, measure: str, method: str, model: str, samples: str
) -> dict[str, Any]:
    """The budget's entry in a file.

    Args:
        trial: the chosen shape.
        backbone: sizes, with a usual prompt.
        average: visual tokens per layer, as wanted.
        measure: what it counts.
        method, model, samples: what it was found with.
    """
    low, high = trial.ends
    return {
        "target": average,
        "source": f"duet schedule for {model}, {method}, {samples}",
        "measure": measure,
        "shape": shape_fields(trial.shape, backbone),
        "expected_loss": round(trial.mean, 4),
        "interval": [round(low, 4), round(high, 4)],
        "worst": round(trial.worst, 4),
        "tokens_per_layer": list(trial.budget.tokens_per_layer(backbone)),
    }


def write_budget(path: Path, name: str, backbone: str, row: dict[str, Any]) -> None:
    """Write the file that `--budget` takes.

    Args:
        path: of the file.
        name: of the budget in it.
        backbone: of `duet.budget.BACKBONES`, or the path of the model.
        row: from `row_of`.
    """
    content = yaml.safe_dump({"backbone": backbone, "budgets": {name: row}}, sort_keys=False, width=110)
    path.write_text(HEADER.format(path=path) + content, encoding="utf-8")


def curve_facts(curves: Curves, trials: Sequence[Trial], backbone: Backbone) -> dict[str, Any]:
    """All that was measured, for JSON: D by stratum and layer, ceilings, trials."""
    found: dict[str, Any] = {}
    for what in WHATS:
        for tokens in (ALL_TOKENS, FEW_TOKENS):
            mean = curves.curve(what, tokens)
            if mean:
                strata = {stratum: curves.curve(what, tokens, stratum) for stratum in curves.strata}
                found[f"{what}, {tokens} tokens"] = {"mean": mean, **strata}
    return {
        "depth": curves.depth,
        "ceilings_in_nats": curves.blind,
        "strata": {stratum: len(rows) for stratum, rows in curves.rows.items()},
        "prefills_per_sample": curves.prefills,
        "curves": found,
        "trials": [
            {
                "name": trial.name,
                "shape": shape_fields(trial.shape, backbone),
                "tokens_per_layer": list(trial.budget.tokens_per_layer(backbone)),
                "loss": trial.mean,
                "interval": list(trial.ends),
                "foretold": trial.foretold,
                "against_flat": trial.against_flat,
                "strata": trial.shares,
                "refused": trial.refused,
            }
            for trial in trials
        ],
    }


def write_json(path: Path, facts: dict[str, Any]) -> None:
    """Write facts as JSON."""
    path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
