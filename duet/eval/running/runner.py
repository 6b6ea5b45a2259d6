"""Runs tasks: every question is answered once, across interruptions, then scored.

    duet eval --model ... --method duet --budget llava15_128 --tasks pope,gqa --output outputs/duet_128

Writes per task, under the output folder:

    run.json            settings that determine the answers; a run is only resumed with the same ones
    predictions.jsonl   one line per answer, in official order, see `duet.eval.running.answer_files`
    timing.jsonl        milliseconds of every batch
    rows.jsonl          parsed answer and decision of every question
    metrics.json        score, counts, tokens, times, operations, settings and environment

Start it with `torchrun` or `accelerate launch` for several processes; batches are distributed by stride.
"""

from __future__ import annotations

import json
import shutil
from collections import deque
from collections.abc import Container, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from accelerate import PartialState
from accelerate.utils import gather_object

from duet.data.rows import DataError
from duet.engine.compat import attention_backend
from duet.errors import UserError
from duet.eval.asking.answerer import Answer, Answerer
from duet.eval.asking.batches import EncodedPrompt, share
from duet.eval.asking.task import Task
from duet.eval.progress import Progress
from duet.eval.running.answer_files import AnswerFiles, replace_file
from duet.eval.running.decisions import write_decisions
from duet.eval.running.provenance import check_settings, model_revision, surroundings
from duet.eval.running.results import metrics
from duet.eval.scoring.benchmark import decide_lines

#: Batches that are prefetched for an accelerator.
LOOK_AHEAD = 2


class Batch(NamedTuple):
    """Number in the plan, encoded prompts by question number, and key -> reason of what could not be read."""

    number: int
    encoded: dict[int, EncodedPrompt]
    failed: dict[str, str]


@dataclass
class Runner:
    """One model with changing compression, on any number of tasks.

    Attributes:
        answerer: the model, compressed or not.
        processes: of this run, from `PartialState()`.
        progress: updated for every question.
        share: pictures that several questions are about are read once.
    """

    answerer: Answerer
    processes: PartialState
    progress: Progress
    share: bool = True

    def run(self, task: Task, folder: Path, switches: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Answer what is missing, score all, write everything; returns the content of metrics.json.

        Raises:
            UserError: the folder holds answers made with other settings.
        """
        settings = {**self._model_settings(switches or {}), **task.settings}
        self._open(folder, settings)
        failed = dict(gather_object(sorted(self._answer(task, folder).items())))
        if self.processes.is_main_process:
            self._finish(task, folder, settings, failed)
        self.processes.wait_for_everyone()
        return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))

    def _model_settings(self, switches: Mapping[str, str]) -> dict[str, Any]:
        model = self.answerer.model
        return {
            "model": self.answerer.source,
            "revision": model_revision(self.answerer.source, model.config),
            "method": self.answerer.method,
            "budget": _fields(self.answerer.budget),
            "switches": dict(switches),
            "dtype": str(model.dtype).removeprefix("torch."),
            "attention": attention_backend(model.config),
        }

    def _open(self, folder: Path, settings: dict[str, Any]) -> None:
        there = check_settings(folder / "run.json", settings)
        if not there and (folder / "predictions.jsonl").exists():
            raise UserError(f"{folder} holds predictions from another tool (no run.json); choose another output folder")
        self.processes.wait_for_everyone()
        if self.processes.is_main_process and not there:
            replace_file(folder / "run.json", json.dumps(settings, indent=2) + "\n")
        self.processes.wait_for_everyone()

    def _answer(self, task: Task, folder: Path) -> dict[str, str]:
        """Answer this process's share; key -> reason of the questions that could not be asked."""
        files = self._files(task, folder, self.processes.process_index)
        done = files.done()
        failed: dict[str, str] = {}
        share = self._shares(task)
        for batch in self._ahead(task, self._unfinished(task, done)):
            failed |= batch.failed
            keys = {task.samples[row].key for row in batch.encoded}
            if not keys <= done.keys():
                prompts = list(batch.encoded.values())
                self.answerer.warm_up(prompts)
                answers, times = self.answerer.answer(prompts, task.max_new_tokens, share)
                vary = self.answerer.sizes_vary
                pairs = zip(batch.encoded, answers, strict=True)
                lines = (_line(task, row, answer, vary) for row, answer in pairs)
                files.append([line for line in lines if line["key"] not in done], {"batch": batch.number, **times})
            self.progress.advance(len(batch.encoded) + len(batch.failed), len(batch.failed))
        return failed

    def _shares(self, task: Task) -> bool:
        """Whether questions share what was read of their pictures.

        Pictures are read one by one, so with one question each a batch of whole prompts is faster.
        """
        return self.share and self.answerer.compressed and task.repeats

    def _files(self, task: Task, folder: Path, process: int = 0) -> AnswerFiles:
        boundaries = len(self.answerer.budget.boundaries(self.answerer.backbone.decoder.layers))
        return AnswerFiles(folder, process, (task.benchmark.answer_field,), boundaries)

    def _unfinished(self, task: Task, done: Container[str]) -> list[tuple[int, list[int]]]:
        todo = []
        for number, rows in share(task.batches, self.processes.process_index, self.processes.num_processes):
            if all(task.samples[row].key in done for row in rows):
                self.progress.advance(len(rows))
            else:
                todo.append((number, rows))
        return todo

    def _ahead(self, task: Task, todo: list[tuple[int, list[int]]]) -> Iterator[Batch]:
        """The batches with their pixels; for an accelerator, prefetched in a thread."""
        if self.answerer.model.device.type == "cpu":
            yield from (self._read(task, *batch) for batch in todo)
            return
        waiting: deque[Future[Batch]] = deque()
        with ThreadPoolExecutor(1) as pool:
            for batch in todo:
                waiting.append(pool.submit(self._read, task, *batch))
                if len(waiting) > LOOK_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _read(self, task: Task, number: int, rows: list[int]) -> Batch:
        batch = Batch(number, {}, {})
        for row in rows:
            sample = task.samples[row]
            try:
                batch.encoded[row] = self.answerer.encode(task.prompts[row], sample.images, sample.video)
            except DataError as error:
                batch.failed[sample.key] = str(error)
        return batch

    def _finish(self, task: Task, folder: Path, settings: dict[str, Any], failed: dict[str, str]) -> None:
        files = self._files(task, folder)
        lines = files.merge(sample.key for sample in task.samples)
        decided = decide_lines(task.benchmark, task.samples, lines)
        write_decisions(folder, decided, failed)
        found = metrics(task, lines, decided, failed, files.timings(), self.answerer)
        found["settings"] = settings
        found["surroundings"] = surroundings(self.answerer.model.device, self.processes.num_processes)
        found["timing"]["shared_pictures"] = self._shares(task)
        replace_file(folder / "metrics.json", json.dumps(found, indent=2, ensure_ascii=False) + "\n")


def start_again(folder: Path, processes: PartialState) -> None:
    """Delete what an earlier run left in a task's folder."""
    if processes.is_main_process and (folder / "run.json").exists():
        shutil.rmtree(folder)
    processes.wait_for_everyone()


def _fields(budget: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(budget).items() if value is not None}


def _line(task: Task, row: int, answer: Answer, sizes_vary: bool) -> dict[str, Any]:
    sample = task.samples[row]
    line = {**task.benchmark.record(sample, answer.text), "key": sample.key, "kept": list(answer.kept)}
    if sizes_vary:
        line["visual"] = answer.full
    return {**line, "tie": True} if answer.tie else line
