"""Scores while training: those of an evaluation, under the compression and with all tokens; and where they are sent."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import PartialState

import duet
from duet.data.dataset import ConversationDataset
from duet.data.rows import read_rows
from duet.errors import UserError
from duet.eval.asking.answerer import Answerer
from duet.eval.asking.task import read_task
from duet.eval.progress import Progress
from duet.eval.running.runner import Runner
from duet.families import find_asking
from duet.loading import load_stock
from duet.train.heldout import BenchmarkScore, HeldOut, HeldOutLoss, all_tokens
from duet.train.run import run
from tests.small_world import random_model, write_questions
from tests.tiny_llava import collate, make_row, tiny_llava
from tests.training import logged, watched_recipe

BUDGET = {"dominant": 10, "contextual": 6, "layers": [1], "ratios": [0.5]}
COMPRESSION = {"method": "duet", "budget": BUDGET}
LATE: dict[str, dict[str, Any]] = {
    "entry": {"entry": 1},
    "frozen": {"frozen": 3},
    "away": {"away": (3,)},
    "counted": {},
}


def test_a_benchmark_s_score_is_that_of_its_evaluation(tmp_path: Path) -> None:
    """Not the share of right answers: the headline of POPE is a mean of F1."""
    root = write_questions(tmp_path / "data", "pope", count=4)
    model, processor = load_stock(random_model(), device="cpu")
    duet.attach(model, "duet", duet.Budget(**BUDGET))
    measures = BenchmarkScore.read(model, processor, ["pope"], str(root), 100, 4, seed=0)
    found = HeldOut(measures, 1, lambda values: None).values(model)
    for ending, method in (("", "duet"), ("_all_tokens", "none")):
        answerer = Answerer.load(random_model(), device="cpu")
        answerer.compress(method, None if method == "none" else duet.Budget(**BUDGET))
        task = read_task(answerer, "pope", root, 4)
        runner = Runner(answerer, PartialState(cpu=True), Progress(len(task.samples), shown=False))
        headline = runner.run(task, tmp_path / method)["headline"]
        assert found[f"benchmark/pope{ending}"] == pytest.approx(headline["value"], abs=0.006) and headline["value"] > 0


@pytest.mark.parametrize("late", LATE)
def test_all_tokens_are_those_of_the_stock_model(late: str) -> None:
    model, batch = tiny_llava(), collate([make_row(1, 6)])
    budget = duet.Budget(dominant=4, layers=(2,), ratios=(0.5,), **LATE[late])
    with torch.no_grad():
        stock = model(**batch).logits
        duet.attach(model, "duet_cover", budget, attention="proportional" if late == "proportional" else None)
        reduced = model(**batch).logits
        with all_tokens(model):
            assert torch.equal(model(**batch).logits, stock)
        assert torch.equal(model(**batch).logits, reduced) and not torch.equal(reduced, stock)


def test_a_run_measures_with_all_tokens_and_tells_trackers(
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    storage = pytest.importorskip("trackio.sqlite_storage", reason="trackio is not installed")
    for module in ("sqlite_storage", "utils"):
        monkeypatch.setattr(f"trackio.{module}.TRACKIO_DIR", tmp_path / "trackio")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    more = {"report_to": ["tensorboard", "trackio"], "project": "duet", "run_name": "tiny"}
    chosen = watched_recipe(world, tmp_path / "out", COMPRESSION, **more)
    chosen.data.eval_benchmarks = ("pope",)
    chosen.data.eval_benchmark_folder = str(write_questions(tmp_path / "data", "pope", count=2))
    run(chosen)

    [measured] = [line for line in logged(tmp_path / "out") if "held_out/loss" in line]
    for name in ("held_out/loss", "accuracy/mean", "benchmark/pope"):
        assert {name, f"{name}_all_tokens"} <= measured.keys()
    assert measured["held_out/loss"] != measured["held_out/loss_all_tokens"]
    model, processor = load_stock(str(tmp_path / "out"), device="cpu")
    rows = read_rows(world / "train" / "watch.json")
    held_out = ConversationDataset(rows, find_asking(model, processor), world / "train" / "images")
    with torch.no_grad():
        again = HeldOutLoss(held_out, 8, processor.tokenizer.pad_token_id)(model.eval())
    assert again["held_out/loss"] == pytest.approx(measured["held_out/loss_all_tokens"], abs=1e-5)

    losses = [line["loss"] for line in logged(tmp_path / "out") if "loss" in line]
    board = events.EventAccumulator(str(tmp_path / "board"))
    board.Reload()
    assert [event.value for event in board.Scalars("train/loss")] == pytest.approx(losses, rel=1e-6)
    [scored] = board.Scalars("train/benchmark/pope_all_tokens")
    assert scored.value == pytest.approx(measured["benchmark/pope_all_tokens"])
    sent = storage.SQLiteStorage.get_logs("duet", "tiny")
    assert [line["train/loss"] for line in sent if "train/loss" in line] == losses


def test_an_absent_tracker_is_named_before_the_model_is_loaded(
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("transformers.integrations.integration_utils.is_wandb_available", lambda: False)
    monkeypatch.setattr("duet.train.run.load_start", lambda *given: pytest.fail("a model was loaded"))
    with pytest.raises(UserError, match=r"training\.report_to: .*[Ww]andb.*pip install wandb") as error:
        run(watched_recipe(world, tmp_path, report_to="wandb"))
    assert "\n" not in str(error.value) and not os.listdir(tmp_path)
