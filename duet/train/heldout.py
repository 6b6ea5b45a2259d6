"""Evaluation during training: held-out loss, exactly right answers, and a subset of benchmarks, every so many steps.

A compressed run is measured twice, under its budget and with all tokens (`..._all_tokens` in the log). Processes share
the rows; where each holds a part of every weight (ZeRO-3, FSDP2), modules run on all of them together, so all of them
evaluate all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from duet.data.collate import collate
from duet.data.encode import IGNORED
from duet.engine.attachment import attached, exchange_compression
from duet.eval.asking.answerer import Answerer
from duet.eval.asking.task import Task, read_task
from duet.eval.scoring.benchmark import decide_lines
from duet.train.ranks import gathered, is_partitioned, processes, total

ALL_TOKENS = "_all_tokens"


class HeldOut(TrainerCallback):
    """Logs what `measures` return, every `every` steps and after the last one.

    Args:
        measures: each takes the model in eval mode and returns values by name, the same on all processes.
        every: steps.
        log: the trainer's log function.
        timed: context for the time that evaluations take.
    """

    def __init__(
        self,
        measures: Sequence[Callable[[Any], dict[str, float]]],
        every: int,
        log: Callable[[dict[str, float]], None],
        timed: Callable[[], Any] = nullcontext,
    ) -> None:
        self.measures = list(measures)
        self.every = every
        self.log = log
        self.timed = timed

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Evaluate the held-out rows if it is time."""
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            due = control.should_log
            with self.timed():
                values = self.values(model)
            self.log(values)
            control.should_log = due  # logging clears it, and this step's loss may still be to come

    def values(self, model: Any) -> dict[str, float]:
        """All measures, under the attached compression and without."""
        training = model.training
        model.eval()
        found: dict[str, float] = {}
        with torch.no_grad():
            for ending, tokens in variants(model):
                with tokens:
                    for measure in self.measures:
                        found |= {f"{name}{ending}": value for name, value in measure(model).items()}
        model.train(training)
        return found


def variants(model: Any) -> Iterator[tuple[str, Any]]:
    """Ending of a name, and the context in which the model runs so: as it is, and with all tokens if it is attached."""
    yield "", nullcontext()
    try:
        attached(model)
    except ValueError:
        return
    yield ALL_TOKENS, all_tokens(model)


@contextmanager
def all_tokens(model: Any) -> Iterator[None]:
    """Inside the block an attached model keeps all its visual tokens."""
    own = attached(model).compression
    exchange_compression(model, own.with_all_tokens())
    try:
        yield
    finally:
        exchange_compression(model, own)


class HeldOutLoss:
    """Mean loss of the learned tokens of a data set: `held_out/loss`.

    Args:
        dataset: examples with labels.
        batch_size: rows at once.
        pad_token_id: for the batches.
    """

    def __init__(self, dataset: Any, batch_size: int, pad_token_id: int) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.pad_token_id = pad_token_id

    def __call__(self, model: Any) -> dict[str, float]:
        """Measure."""
        device = _device(model)
        summed, count = 0.0, 0
        rows, whole = _own_rows(len(self.dataset), model)
        part: Any = Subset(self.dataset, rows)
        for batch in DataLoader(part, self.batch_size, collate_fn=self._collate):
            labels = int((batch["labels"][:, 1:] != IGNORED).sum())
            loss = model(**{name: value.to(device) for name, value in batch.items()}).loss
            summed, count = summed + float(loss) * labels, count + labels
        sums = [summed, count] if whole else total([summed, count], device)
        return {"held_out/loss": round(sums[0] / max(sums[1], 1), 6)}

    def _collate(self, examples: Sequence[Any]) -> dict[str, Tensor]:
        return collate(examples, self.pad_token_id, "right")


class ExactAnswers:
    """Share of rows whose first answer is decoded exactly, by the rows' `task`: `accuracy/TASK`, `accuracy/mean`.

    Decoded greedily from the prompt, as the model would answer later. (One pass over prompt and answer would be
    cheaper, but then the answer's tokens would vote on the visual tokens.)

    Args:
        dataset: the held-out rows.
        batch_size: rows answered at once.
    """

    def __init__(self, dataset: Any, batch_size: int) -> None:
        self.dataset = dataset
        self.batch_size = batch_size

    def __call__(self, model: Any) -> dict[str, float]:
        """Measure."""
        rows, whole = _own_rows(len(self.dataset), model)
        right: dict[str, list[float]] = {
            task: [0.0, 0.0] for task in sorted({self._task(row) for row in self.dataset.rows})
        }
        for place, exact in zip(rows, self._exact(model, rows), strict=True):
            count = right[self._task(self.dataset.rows[place])]
            count[0] += exact
            count[1] += 1
        flat = [value for pair in right.values() for value in pair]
        flat = flat if whole else total(flat, _device(model))
        scores = {task: flat[2 * place] / flat[2 * place + 1] for place, task in enumerate(right)}
        scores["mean"] = sum(scores.values()) / len(scores)
        return {f"accuracy/{task}": round(value, 4) for task, value in scores.items()}

    @staticmethod
    def _task(row: Any) -> str:
        return str(row.extra.get("task", "all"))

    def _exact(self, model: Any, rows: Sequence[int]) -> list[bool]:
        tokenizer = self.dataset.processor.tokenizer
        part: Any = Subset(self.dataset, rows)
        exact: list[bool] = []
        for batch, answers in DataLoader(part, self.batch_size, collate_fn=_Prompts(tokenizer.pad_token_id)):
            said = _answers(model, batch, max(len(answer) for answer in answers))
            exact += [tokens[: len(answer)] == answer for tokens, answer in zip(said, answers, strict=True)]
        return exact


class BenchmarkScore:
    """Headline number of a subset of a benchmark, as `duet eval` computes it: `benchmark/NAME`.

    Args:
        answerer: of the trained model, for its prompts.
        task: from `duet.eval.asking.task.read_task`.
    """

    def __init__(self, answerer: Answerer, task: Task) -> None:
        self.answerer = answerer
        self.task = task

    @classmethod
    def read(
        cls, model: Any, processor: Any, names: Sequence[str], folder: str, limit: int, batch_size: int, seed: int
    ) -> list[BenchmarkScore]:
        """One for each benchmark.

        Raises:
            UserError: files that are missing or unusable.
        """
        answerer = Answerer(model, processor)
        return [cls(answerer, read_task(answerer, name, folder, batch_size, limit, seed=seed)) for name in names]

    def __call__(self, model: Any) -> dict[str, float]:
        """Measure."""
        task = self.task
        said: dict[str, str] = {}
        numbers, whole = _own_rows(len(task.batches), model)
        tokenizer = self.answerer.processor.tokenizer
        for number in numbers:
            rows = task.batches[number]
            samples = [task.samples[row] for row in rows]
            inputs = [
                self.answerer.encode(task.prompts[row], sample.images, sample.video).inputs
                for row, sample in zip(rows, samples, strict=True)
            ]
            ids = _answers(model, collate(inputs, tokenizer.pad_token_id), task.max_new_tokens)
            texts = self.answerer.processor.batch_decode(ids, skip_special_tokens=True)
            said |= {sample.key: text.strip() for sample, text in zip(samples, texts, strict=True)}
        for part in [] if whole else gathered(said):
            said |= part
        benchmark = task.benchmark
        lines = [{"key": key, benchmark.answer_field: text} for key, text in said.items()]
        summary = benchmark.summarise(decide_lines(benchmark, task.samples, lines))
        return {f"benchmark/{benchmark.name}": round(summary.metrics[summary.headline], 2)}


class _Prompts:
    """Collates examples into left-padded prompts up to their first answer, and those answers."""

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def __call__(self, examples: list[Any]) -> tuple[dict[str, Tensor], list[list[int]]]:
        prompts, answers = [], []
        for example in examples:
            learned = (example["labels"] != IGNORED).tolist()
            start = learned.index(True)
            end = learned.index(False, start) if False in learned[start:] else len(learned)
            others = {name: value for name, value in example.items() if name not in ("input_ids", "labels")}
            types = {name: value[:start] for name, value in others.items() if name == "mm_token_type_ids"}
            prompts.append({**others, **types, "input_ids": example["input_ids"][:start]})
            answers.append(example["input_ids"][start:end].tolist())
        return collate(prompts, self.pad_token_id), answers


def _answers(model: Any, batch: dict[str, Tensor], longest: int) -> list[list[int]]:
    prompt = {name: value.to(_device(model)) for name, value in batch.items()}
    together = is_partitioned(model) and processes() > 1
    output = model.generate(
        **prompt, max_new_tokens=longest, do_sample=False, num_beams=1, **({"synced_gpus": True} if together else {})
    )
    return output[:, prompt["input_ids"].shape[1] :].tolist()


def _own_rows(count: int, model: Any) -> tuple[list[int], bool]:
    """The rows that this process evaluates, and whether they are all."""
    if processes() == 1 or is_partitioned(model):
        return list(range(count)), True
    return list(range(torch.distributed.get_rank(), count, processes())), False


def _device(model: Any) -> torch.device:
    return next(model.parameters()).device
