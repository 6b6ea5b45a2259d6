"""From question files to metrics.json: the same files after any interruption, and everything counted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from accelerate import PartialState

from duet.budget import Budget
from duet.cli.main import main
from duet.errors import UserError
from duet.eval.asking.answerer import Answerer
from duet.eval.asking.task import read_task
from duet.eval.progress import Progress
from duet.eval.running.runner import Runner, start_again
from duet.eval.scoring.predictions import read_predictions
from tests.small_world import random_answerer, random_model, write_questions

ROOT = Path(__file__).parents[4]
BUDGET = Budget(dominant=20, contextual=4, layers=(2, 3), ratios=(0.5, 0.0))
NEW_TOKENS = 3


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_questions(tmp_path / "data", "pope", "scienceqa")


@pytest.fixture
def answerer() -> Iterator[Answerer]:
    answerer = random_answerer()
    answerer.compress("duet", BUDGET)
    yield answerer
    answerer.compress("none")


def run(answerer: Answerer, data: Path, folder: Path, task: str = "pope", batch_size: int = 4, **options) -> dict:
    questions = read_task(answerer, task, data, batch_size, max_new_tokens=NEW_TOKENS, **options)
    return Runner(answerer, PartialState(cpu=True), Progress(len(questions.samples), shown=False)).run(
        questions, folder
    )


def rows(folder: Path) -> list[dict]:
    return [json.loads(text) for text in (folder / "predictions.jsonl").read_text().splitlines()]


def test_metrics_hold_score_counts_tokens_times_and_settings(answerer: Answerer, data: Path, tmp_path: Path) -> None:
    found = run(answerer, data, tmp_path / "out")
    assert found["counts"] | {"ties": 0} == {"asked": 12, "scored": 12, "missing": 0, "failed": 0, "ties": 0}
    assert found["headline"]["name"] == "mean_f1"
    assert found["tokens"] == {"computed_average": 15.0, "layers": [0, 2, 3], "kept": [24, 12, 0], "average": 15.0}
    assert found["timing"]["prefill_ms"] > 0 and found["timing"]["decode_ms"] > 0
    assert found["settings"]["budget"]["dominant"] == 20
    assert {"revision", "prompt_hash", "data_hash", "dtype", "attention"} <= found["settings"].keys()
    assert {"git_commit", "libraries", "device", "processes"} <= found["surroundings"].keys()
    assert all(row["kept"] == [24, 12, 0] for row in rows(tmp_path / "out"))
    assert len(read_predictions(tmp_path / "out" / "predictions.jsonl")) == 12


def test_questions_without_picture_keep_nothing_and_do_not_lower_the_average(answerer, data, tmp_path: Path) -> None:
    found = run(answerer, data, tmp_path / "out", "scienceqa")
    kept = [tuple(row["kept"]) for row in rows(tmp_path / "out")]
    assert set(kept) == {(24, 12, 0), (0, 0, 0)}
    assert found["tokens"]["average"] == 15.0


def test_all_tokens_are_counted_without_compression(answerer: Answerer, data: Path, tmp_path: Path) -> None:
    answerer.compress("none")
    assert run(answerer, data, tmp_path / "out")["tokens"]["average"] == 100


def test_an_interrupted_run_ends_with_the_same_file(answerer, data, tmp_path: Path, monkeypatch) -> None:
    run(answerer, data, tmp_path / "whole")
    calls = []
    real = Answerer.answer

    def interrupted(self, batch, max_new_tokens, share=False):
        calls.append(max_new_tokens)
        if calls.count(NEW_TOKENS) == 2:  # one batch, and no more
            raise KeyboardInterrupt
        return real(self, batch, max_new_tokens, share)

    with monkeypatch.context() as patched:
        patched.setattr(Answerer, "answer", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(answerer, data, tmp_path / "again")
    path = tmp_path / "again" / "predictions.jsonl"
    assert len(rows(tmp_path / "again")) == 4
    path.write_bytes(path.read_bytes()[:-7])  # and the last line torn
    run(answerer, data, tmp_path / "again")
    assert path.read_bytes() == (tmp_path / "whole" / "predictions.jsonl").read_bytes()


def test_a_finished_run_answers_nothing_again(answerer, data, tmp_path: Path, monkeypatch) -> None:
    first = run(answerer, data, tmp_path / "out")
    monkeypatch.setattr(Answerer, "answer", None)
    assert run(answerer, data, tmp_path / "out")["metrics"] == first["metrics"]


def test_batches_answer_as_single_questions_do(answerer: Answerer, data: Path, tmp_path: Path) -> None:
    run(answerer, data, tmp_path / "single", batch_size=1)
    run(answerer, data, tmp_path / "batch", batch_size=5)
    pairs = list(zip(rows(tmp_path / "single"), rows(tmp_path / "batch"), strict=True))
    firm = [(one, other) for one, other in pairs if not (one.get("tie") or other.get("tie"))]
    assert len(firm) > len(pairs) / 2
    assert len({one["text"] for one, _ in firm}) > 1
    assert all(one == other for one, other in firm)


def test_predictions_of_another_origin_are_not_continued(answerer, data, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "predictions.jsonl").write_text('{"question_id": 1, "text": "Yes"}\n')
    with pytest.raises(UserError, match="another tool"):
        run(answerer, data, tmp_path / "out")


@pytest.mark.parametrize("change", ["budget", "limit", "batch size"])
def test_other_settings_are_refused(answerer: Answerer, data: Path, tmp_path: Path, change: str) -> None:
    run(answerer, data, tmp_path / "out")
    options = {"limit": {"limit": 5}, "batch size": {"batch_size": 3}}.get(change, {})
    if change == "budget":
        answerer.compress("duet", Budget(dominant=21, contextual=3, layers=(2, 3), ratios=(0.5, 0.0)))
    with pytest.raises(
        UserError, match=f"other settings.*{'subset' if change == 'limit' else change.replace(' ', '_')}"
    ):
        run(answerer, data, tmp_path / "out", **options)
    start_again(tmp_path / "out", PartialState(cpu=True))
    run(answerer, data, tmp_path / "out", **options)


def test_a_picture_that_cannot_be_read_is_named_counted_and_asked_later(answerer, data, tmp_path: Path) -> None:
    run(answerer, data, tmp_path / "whole")
    broken = sorted((data / "pope" / "val2014").iterdir())[1]
    intact = broken.read_bytes()
    broken.write_bytes(b"x" * len(intact))
    answerer._encoded.clear()
    found = run(answerer, data, tmp_path / "out")
    assert found["counts"]["failed"] == found["counts"]["missing"] == 2
    assert all(broken.name in reason for reason in found["failures"].values())
    failed = [json.loads(row) for row in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()]
    assert [row["correct"] for row in failed if row["failed"]] == [False, False]
    broken.write_bytes(intact)
    assert run(answerer, data, tmp_path / "out")["counts"]["failed"] == 0
    same = [(tmp_path / name / "predictions.jsonl").read_bytes() for name in ("whole", "out")]
    assert same[0] == same[1]


def arguments(data: Path, output: Path) -> list[str]:
    numbers = "{dominant: 20, contextual: 4, layers: [2, 3], ratios: [0.5, 0.0]}"
    return [
        *("eval", "--model", random_model(), "--method", "duet", "--budget", numbers, "--tasks", "pope"),
        *("--data", str(data), "--output", str(output), "--batch-size", "2", "--max-new-tokens", str(NEW_TOKENS)),
        *("--device", "cpu"),
    ]


def test_the_command_prints_a_table_and_says_by_its_exit_code_that_answers_are_missing(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(data, tmp_path / "out")) == 0
    assert "mean_f1" in capsys.readouterr().out
    next((data / "pope" / "val2014").iterdir()).write_bytes(b"x")
    assert main([*arguments(data, tmp_path / "other"), "--limit", "12"]) == 3
    assert "failed: cannot read the picture" in capsys.readouterr().out
    assert main([*arguments(data, tmp_path / "out"), "--limit", "4"]) == 2
    assert "other settings" in capsys.readouterr().err


@pytest.mark.slow
def test_killed_and_resumed_and_in_two_processes(data: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    assert main(arguments(data, tmp_path / "whole")) == 0
    expected = (tmp_path / "whole" / "pope" / "predictions.jsonl").read_bytes()

    command = [sys.executable, "-m", "duet.cli.main", *arguments(data, tmp_path / "killed")]
    predictions = tmp_path / "killed" / "pope" / "predictions.jsonl"
    process = subprocess.Popen(command, env=environment)
    while process.poll() is None and not (predictions.exists() and predictions.stat().st_size):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert main(arguments(data, tmp_path / "killed")) == 0
    assert predictions.read_bytes() == expected

    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29517"]
    subprocess.run(
        [*launch, "-m", "duet.cli.main", *arguments(data, tmp_path / "two")], env=environment, check=True, timeout=300
    )
    assert (tmp_path / "two" / "pope" / "predictions.jsonl").read_bytes() == expected
    assert json.loads((tmp_path / "two" / "pope" / "metrics.json").read_text())["surroundings"]["processes"] == 2
