"""Evaluation of families whose pictures have any size: their own prompts, batches, counts of what the run kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from accelerate import PartialState

from duet.budget import Budget
from duet.eval.asking.answerer import Answerer
from duet.eval.asking.task import read_task
from duet.eval.progress import Progress
from duet.eval.running.runner import Runner
from tests import golden_qwen, qwen3_checkpoint
from tests.llava_next_checkpoints import save_hf
from tests.small_world import write_questions

COUNT = 5


def evaluate(model: Path, method: str, budget: Budget, tmp_path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """metrics.json and the lines of predictions.jsonl."""
    answerer = Answerer.load(str(model), device="cpu")
    answerer.compress(method, budget)
    root = write_questions(tmp_path / "data", "pope", count=COUNT)
    questions = read_task(answerer, "pope", root, batch_size=3, limit=COUNT, max_new_tokens=2)
    folder = tmp_path / method
    found = Runner(answerer, PartialState(cpu=True), Progress(COUNT, shown=False)).run(questions, folder)
    lines = (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return found, [json.loads(line) for line in lines]


def test_qwen(tmp_path: Path) -> None:
    """Pictures of 80 x 80 pixels have nine tokens of 28 x 28; a budget above that keeps them all."""
    model = golden_qwen.FOLDER / "weights_hf"
    found, lines = evaluate(model, "duet", Budget(10, 4, layers=(14, 21), ratios=(0.5, 0.0)), tmp_path)
    assert found["settings"]["prompt_format"] == "chat_template"
    assert all((line["visual"], line["kept"]) == (9, [9, 4, 0]) for line in lines) and len(lines) == COUNT
    assert found["tokens"]["computed_average"] == found["tokens"]["average"] == (14 * 9 + 7 * 4) / 28
    assert found["flops"]["tower"] > 0 and found["counts"]["missing"] == 0


def test_qwen3(tmp_path: Path) -> None:
    """Pictures of 80 x 80 pixels are cut to 64 x 64: 64 tokens of 8 x 8."""
    budget = Budget(10, 4, layers=(3, 4), ratios=(0.5, 0.0))
    found, lines = evaluate(qwen3_checkpoint.saved(), "duet", budget, tmp_path)
    assert found["settings"]["prompt_format"] == "chat_template"
    assert all((line["visual"], line["kept"]) == (64, [14, 7, 0]) for line in lines) and len(lines) == COUNT
    assert found["tokens"]["computed_average"] == found["tokens"]["average"] == (3 * 14 + 7) / 6


@pytest.mark.parametrize("method", ["duet", "none"])
def test_llava_next(method: str, tmp_path: Path) -> None:
    """A base crop of 576 patches and tiles; newlines are not counted."""
    budget = Budget(10, 4, layers=(16, 24), ratios=(0.5, 0.0)) if method == "duet" else Budget()
    found, lines = evaluate(save_hf(tmp_path / "model"), method, budget, tmp_path)
    assert found["settings"]["prompt_format"] == "vicuna_v1"
    for line in lines:
        assert line["visual"] % 24 == 0 and line["visual"] > 576
        crops, rest = divmod(line["kept"][0], 14)
        assert (rest, line["kept"][1:]) == (0, [7 * crops, 0]) if method == "duet" else line["kept"] == [line["visual"]]
    assert found["tokens"]["average"] == found["tokens"]["computed_average"]
