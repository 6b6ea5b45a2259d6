"""Puts the observers of a run together: log, progress, ledger, signals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from transformers import PrinterCallback, ProgressCallback

from duet.train.callbacks import Watch
from duet.train.ledger import FILE, Ledger
from duet.train.stopping import LastCheckpoint
from duet.train.trainer import LOG

if TYPE_CHECKING:
    from duet.train.arguments import Recipe
    from duet.train.trainer import DuetTrainer


def watch(trainer: DuetTrainer, recipe: Recipe) -> LastCheckpoint:
    """Add the observers of a recipe's run, and return the one that knows whether a signal has stopped it."""
    output = Path(str(recipe.training.output_dir))
    layout = trainer.layout()
    longest = recipe.training.model_max_length
    ledger = Ledger(output / FILE, recipe.compression.method, layout.processes, longest, layout.rows_per_step)
    for theirs in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(theirs)
    stopping = LastCheckpoint()
    trainer.add_callback(Watch(output / LOG, trainer.tally, ledger))
    trainer.add_callback(stopping)
    return stopping
