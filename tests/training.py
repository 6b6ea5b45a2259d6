"""Small trainings: pictures of the small world with an untrained model, a recipe for them, and what a run logs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import CLIPVisionModel

from duet.config import build
from duet.train.arguments import Recipe
from playground.mini.build_model import build_model, build_processor, training_texts
from playground.mini.generate import write_train
from playground.mini.tokenizer import train_tokenizer
from playground.mini.train_tower import tower_config


def write_world(root: Path, pictures: int, watch: int) -> Path:
    """Training pictures with `watch` held-out questions in `train/`, a model of two decoder layers in `init/`."""
    write_train(root / "train", pictures, seed=0, watch=watch)
    tokenizer = train_tokenizer(training_texts(seed=0, count=pictures))
    model = build_model(tokenizer, CLIPVisionModel(tower_config()), seed=0, layers=2)
    model.save_pretrained(root / "init")
    build_processor(tokenizer).save_pretrained(root / "init")
    return root


def make_recipe(
    world: Path,
    output: Path,
    compression: dict[str, Any] | None,
    freeze: str = "tower",
    data: dict[str, Any] | None = None,
    **training: object,
) -> Recipe:
    """A recipe on a CPU that logs every step; `data` and `training` are added to its sections."""
    rows = {"data_path": str(world / "train" / "finetune.json"), "image_folder": str(world / "train" / "images")}
    quiet = {"output_dir": str(output), "use_cpu": True, "disable_tqdm": True, "logging_steps": 1}
    sections = {
        "model": {"model_name_or_path": str(world / "init"), "freeze": [freeze]},
        "data": {**rows, **(data or {})},
        "training": {**quiet, "per_device_train_batch_size": 4, "learning_rate": 2e-3, **training},
    }
    return build(Recipe, {**sections, **({"compression": compression} if compression else {})})


def watched_recipe(world: Path, output: Path, compression: dict[str, Any] | None = None, **training: object) -> Recipe:
    """A recipe of two steps with held-out questions."""
    data = {"eval_data_path": str(world / "train" / "watch.json"), "eval_every": 2}
    chosen = {"save_steps": 2, "max_steps": 2, "group_by_modality_length": True, **training}
    return make_recipe(world, output, compression, "model.vision_tower", data, **chosen)


def logged(output: Path) -> list[dict[str, Any]]:
    """The lines of a run's log."""
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def losses_of(output: Path) -> list[float]:
    """The losses of a run's steps."""
    return [line["loss"] for line in logged(output) if "loss" in line]
