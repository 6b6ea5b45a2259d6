"""Prompts of Qwen2.5-VL by its chat template, frame times, and the regions of its patches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from duet.backbones.qwen_asking import QwenAsking
from duet.errors import UserError
from duet.qwen2_5_vl.loading import load
from duet.text.placeholders import IMAGE, VIDEO
from duet.types import Clip
from tests.golden_qwen import FOLDER

FRAMES = np.random.default_rng(0).integers(0, 255, (6, 90, 160, 3), dtype=np.uint8)
CLIP = Clip(FRAMES, (0, 10, 20, 30, 40, 50), 60, 10.0)
PICTURE = Image.fromarray(FRAMES[0]).resize((300, 120))
#: What the checkpoint's template makes of one turn.
TURN = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
IMAGE_PAD, VIDEO_PAD = (f"<|vision_start|><|{kind}_pad|><|vision_end|>" for kind in ("image", "video"))


@pytest.fixture(scope="module")
def asking() -> QwenAsking:
    model, processor = load(FOLDER / "weights_hf")
    return QwenAsking(model.config, processor)


@pytest.mark.parametrize(
    ("question", "kinds", "expected"),
    [
        ("who?", [], "who?"),
        ("who?", [IMAGE, VIDEO], f"{IMAGE_PAD}{VIDEO_PAD}who?"),
        ("Is <image> in <video>?", [IMAGE, VIDEO], f"Is {IMAGE_PAD} in {VIDEO_PAD}?"),
    ],
)
def test_prompt(asking: QwenAsking, question: str, kinds: list[str], expected: str) -> None:
    assert asking.prompt(question, kinds, "vicuna_v1") == TURN.format(expected)
    assert asking.conversation("vicuna_v1") == "chat_template"


def test_no_template(asking: QwenAsking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking.processor, "chat_template", None)
    with pytest.raises(UserError, match="no chat template"):
        asking.prompt("who?", [])


def test_times_reach_the_positions(asking: QwenAsking) -> None:
    """Six frames of a video of six seconds: one frame a second, two seconds per temporal patch."""
    inputs = asking.encode(asking.prompt("who?", [VIDEO]), [CLIP])
    assert inputs["second_per_grid_ts"].tolist() == [2.0]
    assert inputs["video_grid_thw"][0, 0] == 3
    assert all(isinstance(value, torch.Tensor) for value in inputs.values())


def test_regions_are_the_units_of_the_prompt(asking: QwenAsking) -> None:
    media = [PICTURE, CLIP, PICTURE]
    inputs = asking.encode(asking.prompt("who?", [IMAGE, VIDEO, IMAGE]), media)
    regions = asking.regions(inputs, media)
    assert [(region.medium, region.frame) for region in regions] == [(0, None), (1, 0), (1, 2), (1, 4), (2, None)]
    assert [region.caption for region in regions[1:4]] == ["0.0 s", "2.0 s", "4.0 s"]
    visual = torch.isin(inputs["input_ids"], torch.tensor([asking.config.image_token_id, asking.config.video_token_id]))
    assert sum(rows * columns for rows, columns in (region.grid for region in regions)) == int(visual.sum())
    assert regions[0].box == (0, 0, 300, 120) and regions[1].box == (0, 0, 160, 90)
    assert regions[0].grid[1] > regions[0].grid[0]


@pytest.mark.parametrize(("seconds", "frames"), [(0.2, 4), (3.0, 6), (10.3, 20), (600.0, 64)])
def test_two_frames_a_second(asking: QwenAsking, seconds: float, frames: int) -> None:
    assert asking.frames(seconds) == frames
