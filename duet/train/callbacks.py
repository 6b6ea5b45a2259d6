"""What a run shows and writes while it trains: `metrics.jsonl`, a line of progress, and its ledger."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from duet.train.ledger import Ledger
from duet.train.ranks import agree
from duet.train.tally import Tally


class Watch(TrainerCallback):
    """Appends one JSON line per log, prints a line of progress, and keeps the ledger.

    Args:
        path: the log, usually `OUTPUT_DIR/metrics.jsonl`.
        tally: the trainer's, whose sums over all processes are up to date when it logs.
        ledger: of the run.
        show: prints a line; None prints nothing.
    """

    def __init__(self, path: Path, tally: Tally, ledger: Ledger, show: Callable[[str], None] | None = print) -> None:
        self.path = path
        self.tally = tally
        self.ledger = ledger
        self.show = show
        self._last: dict[str, float] = {}
        self._first = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start counting."""
        self.tally.start()
        self._first = state.global_step
        self.ledger.start(state.global_step)
        self._last = self._now(state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Log before every save, so that a resumed run logs the same means as one that was never interrupted."""
        if args.save_strategy == "steps" and args.save_steps >= 1 and state.global_step % args.save_steps == 0:
            control.should_log = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write the log with the rates since the previous one."""
        memory = agree([peak_memory_mb()], args.device)[0]
        if not state.is_world_process_zero:
            return
        record: dict[str, Any] = {"step": state.global_step, **(logs or {}), **self._rates(state)}
        record["peak_memory_mb"] = memory
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(record) + "\n")
        self.ledger.write(state.global_step, self.tally, memory)
        if self.show is not None and "loss" in record:
            self.show(progress(record, state.max_steps, self._pace(state)))

    def _now(self, state: TrainerState) -> dict[str, float]:
        elapsed = self.tally.elapsed()
        seconds = elapsed["training"] + elapsed["waiting"]
        return {"step": state.global_step, "seconds": seconds, "waiting": elapsed["waiting"], **self.tally.everyone}

    def _rates(self, state: TrainerState) -> dict[str, float]:
        now = self._now(state)
        new = {name: value - self._last[name] for name, value in now.items()}
        if new["step"] <= 0 or new["seconds"] <= 0:
            return {}
        self._last = now
        seconds, pictures = new["seconds"], new["pictures"]
        rates = {
            "step_seconds": new["seconds"] / new["step"],
            "waiting_share": new["waiting"] / seconds,
            "rows_per_second": new["rows"] / seconds,
            "tokens_per_second": (new["text_tokens"] + new["visual_tokens"]) / seconds,
            "visual_tokens": new["visual_seen"] / pictures if pictures else 0.0,
            "tflops_per_second": new["flops"] / seconds / 1e12,
            "stand_ins": new["stand_ins"],
        }
        return {name: round(value, 4) for name, value in rates.items()}

    def _pace(self, state: TrainerState) -> float:
        """Seconds per step of this session, saving and evaluating included."""
        return sum(self.tally.elapsed().values()) / max(state.global_step - self._first, 1)


def progress(record: dict[str, Any], steps: int, pace: float) -> str:
    """One line about a logged step.

    Args:
        record: a line of `metrics.jsonl`.
        steps: of the whole run.
        pace: seconds per step.
    """
    step = int(record["step"])
    parts = [f"step {step}/{steps} ({100 * step / max(steps, 1):.1f} %)", f"loss {record['loss']:.4f}"]
    if "grad_norm" in record:
        parts.append(f"norm {float(record['grad_norm']):.2f}")
    if "learning_rate" in record:
        parts.append(f"rate {record['learning_rate']:.3g}")
    if "rows_per_second" in record:
        parts += [
            f"{record['rows_per_second']:.3g} rows/s",
            f"{record['tokens_per_second']:.0f} tokens/s",
            f"{record['visual_tokens']:.4g} visual tokens",
        ]
    left = time.strftime("%H:%M:%S", time.gmtime((steps - step) * pace % 86400))
    days = int((steps - step) * pace // 86400)
    parts += [f"{record['peak_memory_mb'] / 1024:.1f} GiB", f"{f'{days} d ' if days else ''}{left} left"]
    return ", ".join(parts)


def peak_memory_mb() -> float:
    """Peak memory so far: the GPU's allocations if there is one, else the process' resident set."""
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**20, 1)
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes on macOS, kilobytes elsewhere
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)
