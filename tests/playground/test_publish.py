"""The published log: every accuracy, evenly thinned losses, each step of a resumed run once."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from playground.mini.publish import read_metrics, thinned


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    losses = [{"step": step, "loss": 1 / (step + 1)} for step in range(100)]
    accuracies = [{"step": step, "accuracy/mean": 0.5} for step in (50, 99)]
    resumed = [{"step": 99, "loss": 0.25}]
    text = "\n".join(json.dumps(record) for record in (*losses, *accuracies, *resumed))
    (tmp_path / "metrics.jsonl").write_text(text + "\n")
    return tmp_path


def test_a_step_logged_twice_counts_once_with_its_last_value(folder: Path) -> None:
    records = read_metrics(folder, "finetune")
    assert len(records) == 102
    assert [record["loss"] for record in records if record["step"] == 99 and "loss" in record] == [0.25]
    assert {record["phase"] for record in records} == {"finetune"}


def test_thinning_keeps_accuracies_and_stays_under_the_limit(folder: Path) -> None:
    records = read_metrics(folder, "finetune")
    lines = [json.loads(line) for line in thinned(records, 2500)]
    assert sum(len(json.dumps(line)) + 1 for line in lines) <= 2500
    assert sum("accuracy/mean" in line for line in lines) == 2
    steps = [line["step"] for line in lines if "loss" in line]
    assert len({after - before for before, after in pairwise(steps)}) == 1
    assert len(thinned(records, 100_000)) == len(records)


def test_a_limit_below_the_accuracies_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="larger than 50 bytes"):
        thinned(read_metrics(folder, "finetune"), 50)
