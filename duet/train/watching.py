"""Puts the observers of a run together: log, progress, ledger, signals."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PrinterCallback, ProgressCallback

from duet.errors import UserError
from duet.train.callbacks import Watch
from duet.train.heldout import BenchmarkScore, ExactAnswers, HeldOut, HeldOutLoss
from duet.train.ledger import FILE, Ledger
from duet.train.stopping import LastCheckpoint
from duet.train.trainer import LOG

if TYPE_CHECKING:
    from duet.train.arguments import Recipe
    from duet.train.trainer import DuetTrainer


def evaluate(trainer: DuetTrainer, recipe: Recipe, processor: Any, held_out: Any) -> None:
    """Add the evaluations of a recipe: held-out rows, if there are any, and benchmarks.

    Raises:
        UserError: unusable files of a benchmark.
    """
    data, size = recipe.data, recipe.training.per_device_eval_batch_size
    measures: list[Callable[[Any], dict[str, float]]] = []
    if held_out is not None:
        pad = processor.tokenizer.pad_token_id
        measures += [HeldOutLoss(held_out, size, pad), ExactAnswers(held_out, size)]
    if data.eval_benchmarks:
        asked = (data.eval_benchmarks, data.eval_benchmark_folder, data.eval_limit, size, recipe.training.seed)
        try:
            measures += BenchmarkScore.read(trainer.bare, processor, *asked)
        except UserError as error:
            raise type(error)(f"data.eval_benchmarks: {error}") from error
    timed = partial(trainer.tally.timed, "evaluating")
    trainer.add_callback(HeldOut(measures, data.eval_every, trainer.log, timed))


def watch(trainer: DuetTrainer, recipe: Recipe) -> LastCheckpoint:
    """Add the observers of a recipe's run, and return the one that knows whether a signal has stopped it."""
    output = Path(str(recipe.training.output_dir))
    layout = trainer.layout()
    longest = recipe.training.model_max_length
    ledger = Ledger(output / FILE, recipe.compression.method, layout.processes, longest, layout.rows_per_step)
    for theirs in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(theirs)
    stopping = LastCheckpoint()
    trainer.add_callback(Watch(output / LOG, trainer.tally, ledger, partial(print, flush=True)))
    trainer.add_callback(stopping)
    return stopping
