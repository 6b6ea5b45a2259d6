"""One question, end to end on a small checkpoint of each family, against the steps done by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import duet
from duet.errors import UserError
from duet.inference import TokenClock, answer, ask, encode, placed, visual_placeholders
from duet.llava.prompts import vicuna_v1
from duet.types import Clip
from tests import golden_qwen, golden_video, qwen3_checkpoint
from tests.llava_checkpoints import HF


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any]:
    return duet.load(str(HF), device="cpu")


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (90, 120, 3), dtype=np.uint8))


def film(frames: int) -> Clip:
    pixels = np.random.default_rng(frames).integers(0, 256, (frames, 60, 80, 3), dtype=np.uint8)
    return Clip(pixels, tuple(range(0, 5 * frames, 5)), 5 * frames, 10.0)


@pytest.mark.parametrize("pictures", [0, 1, 2])
def test_the_answer_is_that_of_generate(loaded: tuple[Any, Any], pictures: int) -> None:
    model, processor = loaded
    given = [noise(seed) for seed in range(pictures)]
    answer = ask(model, processor, given, "What is it?", max_new_tokens=5)
    text = vicuna_v1("<image>\n" * pictures + "What is it?")
    batch = processor(images=given or None, text=text, return_tensors="pt")
    output = model.generate(**batch, max_new_tokens=5, do_sample=False)[0]
    assert torch.equal(answer.input_ids, batch["input_ids"][0])
    new = output[len(answer.input_ids) :]
    assert answer.text == processor.tokenizer.decode(new, skip_special_tokens=True).strip()
    assert answer.generated == len(new)
    assert answer.prefill_ms > 0 and answer.trace is None


def test_a_trace_is_filled(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    duet.attach(model, "duet", "llava15_64")
    answer = ask(model, processor, [noise(0)], "What is it?", max_new_tokens=2, traced=True)
    duet.detach(model)
    assert answer.trace is not None
    assert answer.trace.entered == [102]
    assert [len(stage.kept[0]) for stage in answer.trace.stages] == [51, 0]


FOLDERS = {
    "video_llava": lambda: golden_video.HF,
    "qwen": lambda: golden_qwen.FOLDER / "weights_hf",
    "qwen3": qwen3_checkpoint.saved,
}


@pytest.mark.parametrize("family", FOLDERS)
def test_a_picture_and_a_video(family: str) -> None:
    """Stock `generate` on the processor's output says the same; regions are the units of the trace."""
    model, processor = duet.load(str(FOLDERS[family]()), device="cpu")
    asked = encode(model, processor, [noise(0), film(4)], "Is <image> in <video>?")
    stock = model.generate(**asked.inputs, max_new_tokens=3, do_sample=False)[0]
    given = answer(model, processor, asked, max_new_tokens=3)
    new = stock[asked.inputs["input_ids"].shape[1] :]
    assert given.text == processor.tokenizer.decode(new, skip_special_tokens=True).strip()
    duet.attach(model, "duet", duet.Budget(3, 2, layers=(0.5, 0.75), ratios=(0.5, 0.0)))
    trace = answer(model, processor, asked, max_new_tokens=2, traced=True).trace
    assert trace is not None
    patches = [reduction.assign.shape[1] for reduction in trace.reductions[0]]
    assert patches == [rows * columns for rows, columns in (region.grid for region in asked.regions)]
    assert trace.full == visual_placeholders(model.config, asked.inputs["input_ids"]).tolist()
    assert list(trace.counts().values()) == [5 * len(patches), 5 * len(patches) // 2, 0]


def test_more_new_tokens_than_the_model_has_places_for(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    places = model.config.get_text_config().max_position_embeddings
    with pytest.raises(UserError, match=f"max_new_tokens is {places + 1}; this model has positions for {places}"):
        ask(model, processor, [noise(0)], "What is it?", max_new_tokens=places + 1)


def test_times_of_frames_may_be_a_list(loaded: tuple[Any, Any]) -> None:
    """As Qwen's processor hands them out."""
    assert placed({"second_per_grid_ts": [0.5, 1.0]}, loaded[0])["second_per_grid_ts"].tolist() == [0.5, 1.0]


def test_what_a_family_does_not_take(loaded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = loaded
    with pytest.raises(UserError, match="type llava takes only pictures"):
        ask(model, processor, [film(2)], "What is it?")
    monkeypatch.setattr(model.config, "model_type", "paligemma")
    with pytest.raises(UserError, match=r"video_llava, .* not paligemma"):
        ask(model, processor, [noise(0)], "What is it?")


def test_the_clock() -> None:
    clock = TokenClock()
    for _ in range(4):
        clock.put(torch.zeros(1))
    clock.end()
    clock.times = [1.0, 1.5, 1.75, 2.0]
    assert (clock.prefill_ms, clock.decode_ms) == (500, 500)
