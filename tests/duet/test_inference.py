"""One question, end to end on a small checkpoint, against the steps done by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import duet
from duet.errors import UserError
from duet.inference import TokenClock, ask, place_pictures
from llava.prompts import vicuna_v1
from tests.llava_checkpoints import HF


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any]:
    return duet.load(str(HF), device="cpu")


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (90, 120, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("question", "pictures", "expected"),
    [
        ("why?", 1, "<image>\nwhy?"),
        ("why?", 2, "<image>\n<image>\nwhy?"),
        ("why?", 0, "why?"),
        ("<image> or <image>?", 2, "<image> or <image>?"),
        ("why? <image>", 1, "why? <image>"),
    ],
)
def test_place_pictures(question: str, pictures: int, expected: str) -> None:
    assert place_pictures(question, pictures) == expected


def test_placeholders_that_do_not_fit() -> None:
    with pytest.raises(UserError, match=r"1 <image> placeholder.*2 picture"):
        place_pictures("<image> why?", 2)


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


def test_other_conversations_are_refused(loaded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = loaded
    monkeypatch.setattr(model.config, "model_type", "paligemma")
    with pytest.raises(UserError, match="type llava, not paligemma"):
        ask(model, processor, [noise(0)], "What is it?")


def test_the_clock() -> None:
    clock = TokenClock()
    for _ in range(4):
        clock.put(torch.zeros(1))
    clock.end()
    clock.times = [1.0, 1.5, 1.75, 2.0]
    assert (clock.prefill_ms, clock.decode_ms) == (500, 500)
