"""What a run shows: lines of progress and of the log, and the checkpoint after a signal."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from duet.train.callbacks import Watch, progress
from duet.train.ledger import Ledger
from duet.train.stopping import LastCheckpoint
from duet.train.tally import Passes, Tally


def test_progress_says_speed_memory_and_what_is_left() -> None:
    record = {"step": 100, "loss": 1.25, "grad_norm": 2.0, "learning_rate": 2e-5, "rows_per_second": 12.5}
    record |= {"tokens_per_second": 9000.4, "visual_tokens": 192.0, "peak_memory_mb": 2048}
    line = progress(record, steps=400, pace=300.0)
    assert line == (
        "step 100/400 (25.0 %), loss 1.2500, norm 2.00, rate 2e-05, 12.5 rows/s, 9000 tokens/s, 192 visual tokens, "
        "2.0 GiB, 1 d 01:00:00 left"
    )


def test_the_log_has_rates_since_the_last_line(tmp_path: Path) -> None:
    tally, shown = Tally(None, Passes(3, 3, 1), []), []
    watch = Watch(tmp_path / "metrics.jsonl", tally, Ledger(tmp_path / "ledger.json", "none", 1, 64, 4), shown.append)
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, save_steps=2)
    state, control = TrainerState(max_steps=4, is_world_process_zero=True), TrainerControl()
    watch.on_train_begin(args, state, control)
    for step in (1, 2):
        tally.everyone["rows"] += 4
        time.sleep(0.02)  # the log has four digits
        state.global_step = step
        control.should_log = False
        watch.on_step_end(args, state, control)
        assert control.should_log == (step == 2)  # before a save
        watch.on_log(args, state, control, {"loss": 1.0})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2] and len(shown) == 2
    assert all(line["rows_per_second"] * line["step_seconds"] == pytest.approx(4, rel=0.1) for line in lines[1:])
    assert json.loads((tmp_path / "ledger.json").read_text())["total"]["rows"] == 8


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_and_stops_after_the_step(tmp_path: Path, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    stopping, control = LastCheckpoint(), TrainerControl()
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    state = TrainerState(max_steps=9, global_step=3)
    stopping.on_train_begin(args, state, control)
    stopping.on_step_end(args, state, control)
    assert not control.should_save
    os.kill(os.getpid(), number)
    stopping.on_step_end(args, state, control)
    assert control.should_save and control.should_training_stop and stopping.stopped
    stopping.on_train_end(args, state, control)
    assert signal.getsignal(number) == before
