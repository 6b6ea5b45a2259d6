"""What a run writes while it trains: `metrics.jsonl` always, and held-out accuracy where there is a file for it."""

from __future__ import annotations

import json
import resource
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from duet.data.dataset import Collator, ConversationDataset
from duet.data.encode import IGNORED


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
        """Write the log with the rates since the one before."""
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


class ExactAnswers(TrainerCallback):
    """Logs the share of held-out rows whose answers greedy decoding would give exactly, by the rows' `task`.

    One forward pass decides it: greedy decoding repeats an answer if and only if, with the answer as input, the most
    likely token at each of its positions is the next one, the end token included.
    """

    def __init__(self, dataset: ConversationDataset, every: int, batch_size: int, log: Callable[[dict], None]) -> None:
        self.dataset = dataset
        self.every = every
        self.batch_size = batch_size
        self.log = log

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Look at the held-out rows every so many steps, and after the last one."""
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            due = control.should_log
            self.log({f"accuracy/{task}": value for task, value in self.accuracy(model).items()})
            control.should_log = due  # logging clears it, and this step's loss may be still to come

    @torch.no_grad()
    def accuracy(self, model: torch.nn.Module) -> dict[str, float]:
        """Share of exact rows per task, and over tasks as `mean`."""
        right: dict[str, list[bool]] = defaultdict(list)
        pad = self.dataset.processor.tokenizer.pad_token_id
        loader = DataLoader(self.dataset, self.batch_size, collate_fn=Collator(pad))  # type: ignore[arg-type]
        device = next(model.parameters()).device
        training, row = model.training, 0
        model.eval()
        for batch in loader:
            labels = batch.pop("labels")[:, 1:]
            logits = model(**{name: value.to(device) for name, value in batch.items()}).logits
            guessed = logits[:, :-1].argmax(-1).cpu()
            for exact in ((guessed == labels) | (labels == IGNORED)).all(1).tolist():
                right[str(self.dataset.rows[row].extra.get("task", "all"))].append(exact)
                row += 1
        model.train(training)
        scores = {task: round(sum(values) / len(values), 4) for task, values in sorted(right.items())}
        return {**scores, "mean": round(sum(scores.values()) / len(scores), 4)}


def peak_memory_mb() -> float:
    """Largest memory so far: the GPU's allocations where there is one, else the process' resident set."""
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**20, 1)
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes on macOS, kilobytes elsewhere
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)
