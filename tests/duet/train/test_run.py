"""A whole run on a very small model: learns, logs, writes a stock folder, and resumes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration

import duet
from duet.config import load_config
from duet.data.dataset import ConversationDataset
from duet.data.rows import read_rows
from duet.engine.attachment import attached
from duet.errors import UserError
from duet.families import find_asking
from duet.train.arguments import Recipe
from duet.train.heldout import ExactAnswers
from duet.train.run import run
from duet.train.trainer import DuetTrainer
from tests.training import logged, losses_of, watched_recipe


def test_a_run_learns_logs_and_resumes(world: Path, tmp_path: Path) -> None:
    run(watched_recipe(world, tmp_path, mm_projector_lr=1e-3))
    found = logged(tmp_path)
    losses = losses_of(tmp_path)
    assert losses[-1] < losses[0]
    first = next(line for line in found if "loss" in line)
    assert first["visual_tokens"] == 100
    assert {"grad_norm", "learning_rate", "tokens_per_second", "step_seconds", "peak_memory_mb"} <= set(first)
    assert any("accuracy/mean" in line for line in found)
    model, info = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    before = AutoModelForImageTextToText.from_pretrained(world / "init").state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == ("vision_tower" in name), name

    run(watched_recipe(world, tmp_path, mm_projector_lr=1e-3, max_steps=3))
    resumed = [line for line in logged(tmp_path)[len(found) :] if "loss" in line]
    assert [line["step"] for line in resumed] == [3]
    assert resumed[0]["loss"] < losses[-1] + 0.1  # not the loss of the start


def test_a_run_that_has_ended_stays_as_it_is(world: Path, tmp_path: Path) -> None:
    run(watched_recipe(world, tmp_path, save_steps=1))
    steps = [line["step"] for line in logged(tmp_path) if "loss" in line]
    before = (tmp_path / "model.safetensors").read_bytes()
    run(watched_recipe(world, tmp_path, save_steps=1))
    assert [line["step"] for line in logged(tmp_path) if "loss" in line] == steps == [1, 2]
    assert (tmp_path / "model.safetensors").read_bytes() == before
    budget = {"dominant": 10, "contextual": 6, "layers": [1], "ratios": [0.5]}
    with pytest.raises(UserError, match=r"checkpoint-2 is of a run with none, this one has duet_c_all"):
        run(watched_recipe(world, tmp_path, compression={"method": "duet", "budget": budget}, max_steps=3))


def test_compression_in_the_loop_learns_and_saves_a_stock_folder(world: Path, tmp_path: Path) -> None:
    budget = {"dominant": 10, "contextual": 6, "layers": [1], "ratios": [0.5]}
    run(watched_recipe(world, tmp_path, compression={"method": "duet", "budget": budget}))
    found = [line for line in logged(tmp_path) if "loss" in line]
    assert found[-1]["loss"] < found[0]["loss"]
    assert found[0]["visual_tokens"] == 12  # 16 in the first layer, 8 in the second
    _, info = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]


def test_switches_of_a_recipe_are_those_of_the_run(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positions are kept in training, and `recipe.yaml` says so and can be run again."""
    seen = []
    monkeypatch.setattr(DuetTrainer, "train", lambda self, **how: seen.append(attached(self.model).compression))
    monkeypatch.setattr(DuetTrainer, "save_model", lambda self, folder: None)
    budget = {"dominant": 10, "contextual": 6, "layers": [1], "ratios": [0.5]}
    switches = {"positions": "keep", "text_guidance": "last"}
    run(watched_recipe(world, tmp_path, compression={"method": "duet", "budget": budget, "switches": switches}))
    assert not seen[0].renumber and type(seen[0].pruner).__name__ == "PyramidDrop"
    again = load_config(Recipe, tmp_path / "recipe.yaml")
    assert again.compression.switches == switches and again.training.max_steps == 2
    run(again)
    assert not seen[1].renumber
    run(watched_recipe(world, tmp_path, compression={"method": "duet", "budget": budget}))
    assert seen[2].renumber
    with pytest.raises(UserError, match="positions"):
        run(
            watched_recipe(
                world, tmp_path, compression={"method": "duet", "budget": budget, "switches": {"positions": "no"}}
            )
        )


def test_an_unknown_method_or_budget_is_the_user_s_mistake(world: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown method 'duett'"):
        run(watched_recipe(world, tmp_path, compression={"method": "duett", "budget": "mini_ninth"}))
    with pytest.raises(UserError, match="did you mean dominant"):
        run(watched_recipe(world, tmp_path, compression={"method": "duet", "budget": {"dominannt": 3}}))


def test_frames_per_second_need_a_model_with_videos(world: Path, tmp_path: Path) -> None:
    wanted = watched_recipe(world, tmp_path)
    with pytest.raises(UserError, match=r"data\.fps is 2, but this model takes pictures only"):
        run(replace(wanted, data=replace(wanted.data, fps=2.0)))


class Answered(ConversationDataset):
    """Rows whose answer is what the model says to the row alone; every second one gets a wrong last token."""

    def __init__(self, source: ConversationDataset, model: LlavaForConditionalGeneration) -> None:
        super().__init__(source.rows, source.asking, source.folders["<image>"])
        self.examples = [self.answer(source[place], model, place % 2 == 1) for place in range(len(source))]
        self.rows = [replace(row, extra={"task": ("right", "wrong")[place % 2]}) for place, row in enumerate(self.rows)]

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self.examples[index]

    @staticmethod
    def answer(example: dict, model: LlavaForConditionalGeneration, wrong: bool) -> dict[str, torch.Tensor]:
        start = int((example["labels"] != -100).nonzero()[0])
        pictures = {name: value for name, value in example.items() if name == "pixel_values"}
        prompt = example["input_ids"][None, :start]
        said = model.generate(input_ids=prompt, max_new_tokens=3, do_sample=False, **pictures)[0]
        said[-1] += int(wrong)
        labels = said.clone()
        labels[:start] = -100
        return {"input_ids": said, "labels": labels, **pictures}


@pytest.mark.parametrize("method", ["none", "duet"])
def test_accuracy_in_batches_is_what_generate_says_alone(world: Path, method: str) -> None:
    processor = AutoProcessor.from_pretrained(world / "init", backend="pil")
    model = LlavaForConditionalGeneration.from_pretrained(world / "init")
    if method != "none":
        duet.attach(model, method, duet.Budget(dominant=10, contextual=6, layers=(1,), ratios=(0.5,)))
    rows = [row for row in read_rows(world / "train" / "watch.json") if row.extra["task"] in ("seed_bench", "facts")]
    dataset = ConversationDataset(rows, find_asking(model, processor), world / "train" / "images")
    measure = ExactAnswers(Answered(dataset, model), 5)
    assert measure(model.eval()) == {"accuracy/right": 1.0, "accuracy/wrong": 0.0, "accuracy/mean": 0.5}
