"""Every family trains with DUET in the loop: whole, projector alone, LoRA; what is trained moves, nothing else does."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import duet
from duet.budget import Budget
from duet.config import build
from duet.loading import load_stock
from duet.train.adapters import add_lora
from duet.train.arguments import Recipe, TrainingArguments
from duet.train.freeze import Parts, freeze, is_adapter
from duet.train.run import run
from duet.train.trainer import DuetTrainer
from tests import golden_qwen, golden_video, llava_next_checkpoints, qwen3_checkpoint
from tests.families import FAMILIES
from tests.llava_checkpoints import HF, copy_of
from tests.training import logged

MODES = {"full": {"decoder", "projector", "tower"}, "projector": {"projector"}, "lora": {"adapter", "projector"}}
SHARES = Budget(0.5, 0.1, layers=(0.5,), ratios=(0.5,))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", FAMILIES)
def test_two_steps(family: str, mode: str, tmp_path: Path) -> None:
    tiny = FAMILIES[family]
    torch.manual_seed(0)
    model: Any = add_lora(tiny.build(), {"r": 2}) if mode == "lora" else tiny.build()
    freeze(model, projector_only=mode == "projector")
    tiny.attach(model)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    arguments = TrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, disable_tqdm=True, max_steps=2, per_device_train_batch_size=3,
        learning_rate=1e-2, logging_steps=1, save_strategy="no", report_to="none",
    )  # fmt: skip
    collate = partial(tiny.collate, side="right", labels=True)
    rows: Any = [*tiny.rows, *tiny.rows]
    trainer = DuetTrainer(model=model, args=arguments, train_dataset=rows, data_collator=collate)
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert len(losses) == 2 and all(map(math.isfinite, losses))
    parts = Parts.of_model(model)
    moved = {
        "adapter" if is_adapter(name) else parts.part(name)
        for name, value in model.named_parameters()
        if not torch.equal(value, before[name])
    }
    assert moved - {"newline"} == MODES[mode]
    if mode == "lora":
        duet.detach(model)
        assert model.get_base_model() is not model


def checkpoint(family: str, to: Path) -> Path:
    """A small checkpoint folder of a family."""
    if family == "llava_next":
        return llava_next_checkpoints.save_hf(to)
    if family == "qwen3_vl":
        return Path(qwen3_checkpoint.saved())
    known = {"videollava": golden_video.HF, "qwen2_5_vl": golden_qwen.FOLDER / "weights_hf"}
    return known[family] if family in known else copy_of(HF, to)


def write_rows(to: Path, videos: bool) -> None:
    """A picture, a text, and a video where the family takes one."""
    import av

    noise = np.random.default_rng(0).integers(0, 255, (9, 64, 96, 3), dtype=np.uint8)
    Image.fromarray(noise[0]).save(to / "a.png")
    with av.open(str(to / "a.mp4"), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=4)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        for frame in noise:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    answer = {"from": "gpt", "value": "a ring"}
    rows: list[dict[str, Any]] = [
        {"id": "p", "image": "a.png", "conversations": [{"from": "human", "value": "<image>\nWhat?"}, answer]},
        {"id": "t", "conversations": [{"from": "human", "value": "Hi"}, answer]},
    ]
    if videos:
        rows.append(
            {"id": "v", "video": "a.mp4", "conversations": [{"from": "human", "value": "<video>\nSo?"}, answer]}
        )
    (to / "rows.json").write_text(json.dumps(rows * 2))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llava", "llava_next", "videollava", "qwen2_5_vl", "qwen3_vl"])
def test_a_recipe_from_rows_to_an_adapter_that_opens(family: str, tmp_path: Path) -> None:
    start = checkpoint(family, tmp_path / "start")
    videos = family not in ("llava", "llava_next")
    write_rows(tmp_path, videos)
    qwen = family.startswith("qwen")
    limits = {"min_pixels": 28 * 28 * 4, "max_pixels": 28 * 28 * 16, "fps": 2.0, "max_frames": 4} if qwen else {}
    budget = {"dominant": 0.5, "contextual": 0.1, "layers": [0.5], "ratios": [0.5]}
    recipe = build(
        Recipe,
        {
            "model": {"model_name_or_path": str(start), "lora": {"r": 2}},
            "data": {"data_path": str(tmp_path / "rows.json"), "image_folder": str(tmp_path), **limits},
            "compression": {"method": "duet", "budget": [budget, "none"], "weights": [3, 1]},
            "training": {
                "output_dir": str(tmp_path / "out"), "use_cpu": True, "disable_tqdm": True, "max_steps": 2,
                "per_device_train_batch_size": 2, "learning_rate": 1e-2, "logging_steps": 1, "model_max_length": 9000,
                "rates": {"projector": 1e-3},
            },
        },
    )  # fmt: skip
    run(recipe)
    lines = logged(tmp_path / "out")
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 2 and all(map(math.isfinite, losses))
    model, _ = load_stock(tmp_path / "out", device="cpu")
    base = load_stock(start, device="cpu")[0].state_dict()
    parts = Parts.of_model(model)
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, base[name])}
    assert {parts.part(name) for name in moved} == {"decoder", "projector"}
