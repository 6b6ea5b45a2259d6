"""Qwen3-VL's checkpoints, prompts and processor, on a small checkpoint written as the hub has them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import Qwen3VLForConditionalGeneration as Stock
from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize

import duet
from duet.backbones.qwen_asking import QwenAsking
from duet.engine.attachment import is_attached
from duet.errors import UserError
from duet.qwen3_vl.processing import Qwen3VLProcessor, Qwen3VLVideoProcessor
from duet.text.placeholders import IMAGE, VIDEO
from duet.types import Clip
from tests.qwen3_checkpoint import save, saved

FRAMES = np.random.default_rng(0).integers(0, 255, (5, 60, 80, 3), dtype=np.uint8)
CLIP = Clip(FRAMES, (0, 5, 10, 15, 20), 25, 10.0)
PICTURE = Image.fromarray(FRAMES[0]).resize((120, 40))


@pytest.fixture(scope="module")
def loaded():
    return duet.load(str(saved()), device="cpu")


@pytest.fixture(scope="module")
def asking(loaded):
    return QwenAsking(loaded[0].config, loaded[1])


def test_load_gives_a_stock_model(loaded):
    model, processor = loaded
    assert type(model) is Stock and not is_attached(model)
    assert isinstance(processor, Qwen3VLProcessor)
    weights = load_file(saved() / "model.safetensors")
    assert torch.equal(model.lm_head.weight, weights["lm_head.weight"])


def test_tensors_that_do_not_fit_are_listed(tmp_path):
    folder = save(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("model.visual.deepstack_merger_list.1.linear_fc2.bias")
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"1 missing: model.visual.deepstack_merger_list.1.linear_fc2.bias"):
        duet.load(str(folder))


def test_mixtures_of_experts_are_refused(tmp_path):
    config = json.loads((saved() / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "qwen3_vl_moe"}))
    with pytest.raises(UserError, match="qwen3_vl_moe"):
        duet.load(str(tmp_path))


def test_the_time_of_every_two_frames_stands_before_them(asking):
    """As the stock processor writes it: 0.0 and 0.5 s, 1.0 and 1.5 s, and the last frame twice."""
    inputs = asking.encode(asking.prompt("who?", [VIDEO]), [CLIP])
    assert inputs["video_grid_thw"].tolist() == [[3, 6, 8]]
    text = asking.processor.tokenizer.decode(inputs["input_ids"][0])
    frame = "<|vision_start|>" + "<|video_pad|>" * 12 + "<|vision_end|>"
    assert "".join(f"<{time} seconds>{frame}" for time in (0.2, 1.2, "2.0")) in text
    assert torch.equal(inputs["mm_token_type_ids"][0] == 2, inputs["input_ids"][0] == asking.config.video_token_id)


def test_regions_are_the_units_of_the_prompt(asking, loaded):
    media = [PICTURE, CLIP]
    inputs = asking.encode(asking.prompt("who?", [IMAGE, VIDEO]), media)
    regions = asking.regions(inputs, media)
    assert [(region.medium, region.frame) for region in regions] == [(0, None), (1, 0), (1, 2), (1, 4)]
    model, _ = loaded
    duet.attach(model, "visionzip", duet.Budget(3, 1))
    with duet.record(model) as trace, torch.no_grad():
        model(**inputs)
    duet.detach(model)
    sizes = [rows * columns for rows, columns in (region.grid for region in regions)]
    assert [unit.assign.shape[1] for unit in trace.reductions[0]] == sizes


@pytest.mark.parametrize(
    "shape", [(4, 60, 80), (5, 60, 80), (2, 5, 300), (7, 33, 47), (16, 240, 320), (1, 20, 20), (32, 64, 64)]
)
def test_frames_are_as_large_as_the_stock_processor_has_them(shape):
    count, height, width = shape
    processor = Qwen3VLVideoProcessor(size={"shortest_edge": 4096, "longest_edge": 65536})
    made = processor([[np.zeros((height, width, 3), dtype=np.uint8)] * count], return_tensors="pt")
    rows, columns = smart_resize(
        max(count, 2), height, width, temporal_factor=2, factor=32, min_pixels=4096, max_pixels=65536
    )
    assert made["video_grid_thw"].tolist() == [[-(-count // 2), rows // 16, columns // 16]]


def test_settings_of_videos_are_saved_under_the_stock_name(loaded):
    assert loaded[1].video_processor.to_dict()["video_processor_type"] == "Qwen3VLVideoProcessor"
    assert loaded[1].video_processor.size["longest_edge"] == 6 * 32 * 24
