"""Held-out accuracy during training: answers to a conversation file, compared word for word.

The first answer of every row is decoded greedily from its prompt, with compression if that is attached, as the
model would answer later. (One pass over prompt and answer would be cheaper, but then the answer's tokens would vote on
the visual tokens.)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from duet.data.collate import collate
from duet.data.dataset import ConversationDataset, Example
from duet.data.encode import IGNORED


class ExactAnswers(TrainerCallback):
    """Logs the share of held-out rows that are answered exactly, by the rows' `task`, as `accuracy/TASK`.

    Args:
        dataset: the held-out rows.
        every: steps between evaluations; the last step is always evaluated.
        batch_size: rows answered at once.
        log: the trainer's log function.
    """

    def __init__(
        self, dataset: ConversationDataset, every: int, batch_size: int, log: Callable[[dict[str, float]], None]
    ) -> None:
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
        """Evaluate the held-out rows every `every` steps, and after the last one."""
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            due = control.should_log
            self.log({f"accuracy/{task}": value for task, value in self.accuracy(model).items()})
            control.should_log = due  # logging clears it, and this step's loss may still be to come

    def accuracy(self, model: nn.Module) -> dict[str, float]:
        """Share of exact rows per task, and their mean over tasks as `mean`."""
        right: dict[str, list[bool]] = defaultdict(list)
        training = model.training
        model.eval()
        for place, exact in enumerate(self._exact(model)):
            right[str(self.dataset.rows[place].extra.get("task", "all"))].append(exact)
        model.train(training)
        scores = {task: round(sum(values) / len(values), 4) for task, values in sorted(right.items())}
        return {**scores, "mean": round(sum(scores.values()) / len(scores), 4)}

    def _exact(self, model: Any) -> list[bool]:
        tokenizer = self.dataset.processor.tokenizer
        device = next(model.parameters()).device
        loader = DataLoader(self.dataset, self.batch_size, collate_fn=_Prompts(tokenizer.pad_token_id))  # type: ignore[arg-type]
        exact: list[bool] = []
        for batch, answers in loader:
            prompt = {name: value.to(device) for name, value in batch.items()}
            longest = max(len(answer) for answer in answers)
            with torch.no_grad():
                output = model.generate(**prompt, max_new_tokens=longest, do_sample=False, num_beams=1)
            said = output[:, prompt["input_ids"].shape[1] :].tolist()
            exact += [tokens[: len(answer)] == answer for tokens, answer in zip(said, answers, strict=True)]
        return exact


class _Prompts:
    """Collates examples into left-padded prompts up to their first answer, and those answers."""

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def __call__(self, examples: list[Example]) -> tuple[dict[str, Tensor], list[list[int]]]:
        prompts, answers = [], []
        for example in examples:
            learned = (example["labels"] != IGNORED).tolist()
            start = learned.index(True)
            end = learned.index(False, start) if False in learned[start:] else len(learned)
            pixels = {name: value for name, value in example.items() if name not in ("input_ids", "labels")}
            prompts.append({"input_ids": example["input_ids"][:start], **pixels})
            answers.append(example["input_ids"][start:end].tolist())
        return collate(prompts, self.pad_token_id), answers
