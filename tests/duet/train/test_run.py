"""A whole run on a very small model: learns, logs, writes a stock folder, and resumes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, CLIPVisionModel

from duet.config import build
from duet.data.dataset import ConversationDataset
from duet.data.rows import read_rows
from duet.train.arguments import Recipe
from duet.train.callbacks import ExactAnswers
from duet.train.run import run
from llava.prompts import TEMPLATES
from playground.mini.build_model import build_model, build_processor, training_texts
from playground.mini.generate import write_train
from playground.mini.tokenizer import train_tokenizer
from playground.mini.train_tower import tower_config


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 12 training pictures and an untrained model of two decoder layers."""
    root = tmp_path_factory.mktemp("world")
    write_train(root / "train", 12, seed=0, watch=6)
    tokenizer = train_tokenizer(training_texts(root / "train"))
    model = build_model(tokenizer, CLIPVisionModel(tower_config()), seed=0, layers=2)
    model.save_pretrained(root / "init")
    build_processor(tokenizer).save_pretrained(root / "init")
    return root


def recipe(world: Path, output: Path, **training: object) -> Recipe:
    fixed = {"output_dir": str(output), "use_cpu": True, "disable_tqdm": True, "logging_steps": 1, "save_steps": 2}
    data = {
        "data_path": str(world / "train" / "finetune.json"),
        "image_folder": str(world / "train" / "images"),
        "eval_data_path": str(world / "train" / "watch.json"),
        "eval_every": 2,
    }
    model = {"model_name_or_path": str(world / "init"), "freeze": ["model.vision_tower"]}
    sizes = {"per_device_train_batch_size": 4, "learning_rate": 2e-3, "max_steps": 2, "group_by_modality_length": True}
    return build(Recipe, {"model": model, "data": data, "training": {**fixed, **sizes, **training}})


def lines(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def test_a_run_learns_logs_and_resumes(world: Path, tmp_path: Path) -> None:
    run(recipe(world, tmp_path, mm_projector_lr=1e-3))
    logged = lines(tmp_path)
    losses = [line["loss"] for line in logged if "loss" in line]
    assert losses[-1] < losses[0]
    first = next(line for line in logged if "loss" in line)
    assert first["visual_tokens"] == 100
    assert {"grad_norm", "learning_rate", "tokens_per_second", "step_seconds", "peak_memory_mb"} <= set(first)
    assert any("accuracy/mean" in line for line in logged)
    model, info = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    before = AutoModelForImageTextToText.from_pretrained(world / "init").state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == ("vision_tower" in name), name

    run(recipe(world, tmp_path, mm_projector_lr=1e-3, max_steps=3))
    resumed = [line for line in lines(tmp_path)[len(logged) :] if "loss" in line]
    assert [line["step"] for line in resumed] == [3]
    assert resumed[0]["loss"] < losses[-1] + 0.1  # not the loss of the start


def test_exact_answers_agree_with_greedy_decoding(world: Path) -> None:
    """Teacher-forced exactness is the same as decoding greedily and comparing."""
    processor = AutoProcessor.from_pretrained(world / "init", backend="pil")
    model = AutoModelForImageTextToText.from_pretrained(world / "init")
    rows = read_rows(world / "train" / "watch.json")
    dataset = ConversationDataset(rows, processor, TEMPLATES["vicuna_v1"], world / "train" / "images")
    scores = ExactAnswers(dataset, 1, 5, log=dict.update).accuracy(model)  # type: ignore[arg-type]
    assert set(scores) == {"facts", "gqa", "mean", "mme", "pope", "scienceqa", "seed_bench", "textvqa"}
    for index in (0, 7, 20):
        example = dataset[index]
        learned = (example["labels"] != -100).nonzero().flatten()
        prompt = example["input_ids"][: learned[0]][None]
        pictures = {name: value for name, value in example.items() if name == "pixel_values"}
        answer = model.generate(input_ids=prompt, max_new_tokens=len(learned), do_sample=False, **pictures)
        greedy = torch.equal(answer[0, prompt.shape[1] :], example["input_ids"][learned])
        single = ConversationDataset([rows[index]], processor, TEMPLATES["vicuna_v1"], world / "train" / "images")
        assert ExactAnswers(single, 1, 1, log=dict.update).accuracy(model)["mean"] == float(greedy)  # type: ignore[arg-type]
