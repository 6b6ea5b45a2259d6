"""`ledger.json`: what a run has cost. It fills the paper's Table 6 (`duet table 6 --training DIR`).

A run that was interrupted has one session per start. Seconds are those of the first process; GPU hours are seconds
times processes, start-up apart: from the start of the program to the first step.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import torch

from duet.train.tally import Tally

FILE = "ledger.json"


class Ledger:
    """The ledger of a run.

    Args:
        path: the file; earlier sessions in it are kept.
        method: name of the compression.
        processes: their number.
        longest: `model_max_length`.
        rows_per_step: over all processes.
    """

    def __init__(self, path: Path, method: str, processes: int, longest: int, rows_per_step: int) -> None:
        self.path = path
        self.method = method
        self.processes = processes
        self.longest = longest
        self.rows_per_step = rows_per_step
        self.sessions: list[dict[str, Any]] = []
        if path.is_file():
            try:
                self.sessions = json.loads(path.read_text(encoding="utf-8"))["sessions"]
            except (
                ValueError,
                KeyError,
                TypeError,
            ):  # cut by a kill of an older version; it is an account, not a state
                self.sessions = []
        self.current: dict[str, Any] = {}

    def start(self, step: int) -> None:
        """A session begins after `step` steps."""
        self.current = {
            "first_step": step,
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "processes": self.processes,
            "start_up_seconds": round(time.time() - psutil.Process().create_time(), 1),
        }
        self.sessions.append(self.current)

    def write(self, step: int, tally: Tally, memory_mb: float) -> None:
        """Write the file as of `step`."""
        seconds = {f"{name}_seconds": round(value, 2) for name, value in tally.elapsed().items()}
        steps = step - self.current["first_step"]
        # what D's train_pdrop.py prints as "tokens per GPU": steps x batch x the longest row, padding included
        printed = steps * self.rows_per_step * self.longest
        counts = {name: int(value) for name, value in tally.everyone.items()}
        peak = max(memory_mb, self.current.get("peak_memory_mb", 0))
        self.current |= {"last_step": step, **seconds, **counts, "tokens_as_printed": printed, "peak_memory_mb": peak}
        whole = {"method": self.method, "total": summed(self.sessions), "sessions": self.sessions}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        waiting = self.path.with_suffix(".part")
        waiting.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
        waiting.replace(self.path)


def summed(sessions: list[dict[str, Any]]) -> dict[str, float]:
    """Sums over sessions, and GPU hours of training, of waiting for data, and of everything."""
    names = [name for name in sessions[-1] if name not in ("first_step", "last_step", "device", "processes")]
    sums = {name: _plain(sum(session.get(name, 0) for session in sessions)) for name in names}
    sums["peak_memory_mb"] = max(session.get("peak_memory_mb", 0) for session in sessions)
    sums["steps"] = sum(session.get("last_step", session["first_step"]) - session["first_step"] for session in sessions)
    sums["gpu_hours"] = round(sum(_seconds(each) * each["processes"] for each in sessions) / 3600, 6)
    sums["gpu_hours_with_start_up"] = round(
        sum((_seconds(each, True) + each["start_up_seconds"]) * each["processes"] for each in sessions) / 3600, 6
    )
    return sums


def _seconds(session: Mapping[str, Any], everything: bool = False) -> float:
    names = ("training", "waiting", *(("saving", "evaluating") if everything else ()))
    return sum(session.get(f"{name}_seconds", 0.0) for name in names)


def _plain(value: float) -> float:
    return round(value, 2) if isinstance(value, float) else value
