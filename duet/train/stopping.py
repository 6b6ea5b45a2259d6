"""SIGTERM, as clusters send it before a job's time is over: one last checkpoint, then the end.

Every process notes the signal, and after each step all of them agree, so none saves alone. For Slurm see
`scripts/slurm/train.sh`.
"""

from __future__ import annotations

import logging
import signal
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from duet.train.ranks import agree

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class LastCheckpoint(TrainerCallback):
    """Saves and stops after the step in which a signal came.

    Attributes:
        stopped: a signal has ended the training before its last step.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._asked = False
        self._before: dict[signal.Signals, Any] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Listen."""
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._ask)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Agree with the other processes."""
        if not agree([float(self._asked)], args.device)[0] or state.global_step >= state.max_steps:
            return
        self.stopped = True
        control.should_log = control.should_save = control.should_training_stop = True
        logger.warning("a signal asks to stop: saving step %d and ending", state.global_step)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave signals as they were."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
