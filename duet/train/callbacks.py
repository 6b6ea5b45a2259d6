"""The log of every run: `metrics.jsonl`."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class MetricsFile(TrainerCallback):
    """Appends one JSON line per log: loss, lr, gradient norm, tokens/s, step time, visual tokens, peak memory.

    Args:
        path: the file, usually `OUTPUT_DIR/metrics.jsonl`.
        counters: returns the trainer's running totals (`tokens`, `visual_tokens`, `rows`, `seconds`).
    """

    def __init__(self, path: Path, counters: Callable[[], dict[str, float]]) -> None:
        self.path = path
        self.counters = counters
        self.last: dict[str, float] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start counting."""
        self.last = {"step": state.global_step, **self.counters()}

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write the log with the rates since the previous one."""
        if not state.is_world_process_zero:
            return
        record: dict[str, Any] = {"step": state.global_step, **(logs or {})}
        now = {"step": state.global_step, **self.counters()}
        steps, seconds = now["step"] - self.last["step"], now["seconds"] - self.last["seconds"]
        if steps > 0 and seconds > 0:
            record["step_seconds"] = round(seconds / steps, 4)
            record["tokens_per_second"] = round((now["tokens"] - self.last["tokens"]) / seconds, 1)
            pictures = now["pictures"] - self.last["pictures"]
            visual = now["visual_tokens"] - self.last["visual_tokens"]
            record["visual_tokens"] = round(visual / pictures, 2) if pictures else 0.0
            self.last = now
        record["peak_memory_mb"] = peak_memory_mb()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(record) + "\n")


def peak_memory_mb() -> float:
    """Peak memory so far: the GPU's allocations if there is one, else the process' resident set."""
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**20, 1)
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes on macOS, kilobytes elsewhere
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)
