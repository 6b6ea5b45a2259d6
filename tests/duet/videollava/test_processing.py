"""Tokens and pixels of the processor that needs no torchvision, against transformers' own pieces."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.video_llava.image_processing_video_llava import VideoLlavaImageProcessor

from duet.errors import UserError
from duet.videollava.model.builder import load
from duet.videollava.processing import VideoLlavaProcessorPil, picture_name
from tests.golden_video import HF, IMAGE, VIDEO

RNG = np.random.default_rng(0)
CLIP = RNG.integers(0, 255, (8, 60, 90, 3), dtype=np.uint8)
PICTURE = Image.fromarray(RNG.integers(0, 255, (300, 260, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def processor() -> VideoLlavaProcessorPil:
    return load(HF)[1]


def test_pixels_equal_those_of_transformers(processor):
    """Shorter side 224, centre crop, CLIP's mean and deviation; every frame as a picture, none flipped."""
    stock = VideoLlavaImageProcessor.from_pretrained(HF)
    found = processor(text="<image><video>", images=PICTURE, videos=CLIP)
    frames = stock(list(CLIP), return_tensors="pt", return_legacy_image_output=False)[picture_name()]
    assert torch.equal(found["pixel_values_videos"], frames[None])
    picture = stock(PICTURE, return_tensors="pt", return_legacy_image_output=False)[picture_name()]
    assert torch.equal(found[picture_name()], picture)
    assert torch.equal(processor["video"](CLIP)["pixel_values_videos"], frames[None])
    assert torch.equal(processor["image"](PICTURE, return_tensors="pt")["pixel_values"], picture)


def test_placeholders(processor):
    found = processor(
        text=["USER: <video>\nWhat? ASSISTANT:", "<image> and <image>?"],
        images=[PICTURE] * 2,
        videos=CLIP,
        padding=True,
    )
    counts = [[int((row == token).sum()) for token in (IMAGE, VIDEO)] for row in found["input_ids"]]
    assert counts == [[0, 8 * 257], [2 * 256, 0]]
    assert found["attention_mask"][1, 0] == 0 and found["attention_mask"][1, -1] == 1
    # as transformers does it: placeholders repeated in the text, which is then tokenized once
    text = "USER: " + "<video>" * 8 * 257 + "\nWhat? ASSISTANT:"
    assert found["input_ids"][0].tolist() == processor.tokenizer(text)["input_ids"]


@pytest.mark.parametrize("frames", [1, 16])
def test_number_of_frames_is_free(processor, frames):
    found = processor(text="<video>", videos=np.repeat(CLIP[:1], frames, 0))
    assert int((found["input_ids"] == VIDEO).sum()) == frames * 257
    assert found["pixel_values_videos"].shape == (1, frames, 3, 224, 224)


def test_one_video_or_several_in_every_form(processor):
    pictures = [Image.fromarray(frame) for frame in CLIP]
    wanted = processor["video"](CLIP)["pixel_values_videos"]
    for one in (pictures, list(CLIP), [CLIP], [pictures], CLIP[None]):
        assert torch.equal(processor["video"](one)["pixel_values_videos"], wanted)
    for two in ([CLIP, CLIP], [pictures, pictures], np.stack([CLIP, CLIP])):
        assert torch.equal(processor["video"](two)["pixel_values_videos"], wanted.repeat(2, 1, 1, 1, 1))


def test_what_does_not_fit_is_refused(processor):
    with pytest.raises(UserError, match=r"2 <image> placeholder\(s\) for 1"):
        processor(text="<image><image>", images=PICTURE)
    with pytest.raises(UserError, match=r"1 <video> placeholder\(s\) for 0"):
        processor(text="<video>", images=None)
    with pytest.raises(UserError, match=r"same number of frames, at least one; got \[4, 8\]"):
        processor(text="<video><video>", videos=[CLIP, CLIP[:4]])
    with pytest.raises(UserError, match=r"at least one; got \[0\]"):
        processor(text="<video>", videos=CLIP[:0])


def test_text_alone(processor):
    assert set(processor(text="What is it?")) == {"input_ids", "attention_mask"}
