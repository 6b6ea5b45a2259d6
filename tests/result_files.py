"""Result folders as `duet eval` writes them, made up for the tests of tables and figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from duet.budget import Backbone, Budget, find_backbone
from tests.named import named

LLAVA = "llava-hf/llava-1.5-7b-hf"


def write_run(
    root: Path,
    task: str,
    value: float,
    method: str = "none",
    budget: Budget | str | None = None,
    *,
    model: str = LLAVA,
    backbone: str | Backbone = "llava15",
    stages: tuple[int, ...] = (1, 2),
    asked: int = 100,
    scored: int | None = None,
    milliseconds: float = 10.0,
    subset: dict[str, int] | None = None,
    **settings: Any,
) -> Path:
    """Write one metrics.json and return its folder."""
    numbers = named(budget, stages, backbone) if isinstance(budget, str) else budget or Budget()
    average = numbers.average(find_backbone(backbone))
    folder = root / Path(model).name / f"{method}-{len(list(root.rglob('metrics.json')))}" / task
    folder.mkdir(parents=True)
    content = {
        "task": task,
        "version": 1,
        "headline": {"name": "headline", "value": value},
        "metrics": {"headline": value},
        "counts": {"asked": asked, "scored": asked if scored is None else scored, "missing": 0, "failed": 0, "ties": 0},
        "tokens": {"computed_average": average, "average": average},
        "timing": {"prefill_ms": milliseconds, "decode_ms": 0.0},
        "flops": {"tower": 1, "projector": 1, "prefill": 1},
        "subset": subset,
        "settings": {
            "model": model,
            "method": method,
            "budget": {name: entry for name, entry in vars(numbers).items() if entry is not None},
            "switches": {},
            "dtype": "float32",
            **settings,
        },
        "surroundings": {"device": "cpu", "threads": 1},
    }
    (folder / "metrics.json").write_text(json.dumps(content), encoding="utf-8")
    return folder
