"""Prompts of Video-LLaVA, and what of pictures and frames its towers see."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from duet.text.placeholders import IMAGE, VIDEO
from duet.types import Clip
from duet.videollava.asking import VideoLlavaAsking
from duet.videollava.model.builder import load
from tests.golden_video import HF

FRAMES = np.random.default_rng(0).integers(0, 255, (4, 60, 90, 3), dtype=np.uint8)
CLIP = Clip(FRAMES, (0, 9, 18, 27), 28, 9.0)
PICTURE = Image.new("RGB", (100, 300))


@pytest.fixture(scope="module")
def asking() -> VideoLlavaAsking:
    model, processor = load(HF)
    return VideoLlavaAsking(model.config, processor)


def test_prompt(asking: VideoLlavaAsking) -> None:
    text = asking.prompt("who?", [VIDEO, IMAGE])
    assert text.startswith("A chat between a curious user") and text.endswith("USER: <video>\n<image>\nwho? ASSISTANT:")
    assert asking.prompt("who?", [VIDEO], "llava_v1").startswith("A chat between a curious human")


def test_pictures_and_videos_in_the_order_of_the_prompt(asking: VideoLlavaAsking) -> None:
    media = [CLIP, PICTURE]
    inputs = asking.encode(asking.prompt("who?", [VIDEO, IMAGE]), media)
    assert inputs["pixel_values_videos"].shape == (1, 4, 3, 224, 224)
    regions = asking.regions(inputs, media)
    assert [(region.medium, region.frame) for region in regions] == [(0, 0), (0, 1), (0, 2), (0, 3), (1, None)]
    assert [region.caption for region in regions] == ["0.0 s", "1.0 s", "2.0 s", "3.0 s", ""]
    assert all(region.grid == (16, 16) for region in regions)
    assert regions[0].box == (15, 0, 75, 60) and regions[-1].box == (0, 100, 100, 200)


def test_eight_frames(asking: VideoLlavaAsking) -> None:
    assert asking.takes_videos and asking.frames(1.0) == asking.frames(600.0) == 8
