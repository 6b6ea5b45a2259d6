"""LLaVA-NeXT's pictures on their way into batches: training rows, evaluation prompts, real photographs."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import duet
from duet.budget import Budget
from duet.data.collate import collate
from duet.data.dataset import ConversationDataset
from duet.data.rows import Row
from duet.eval.asking.answerer import Answerer
from duet.families import find_asking
from duet.llava.model.builder import load
from duet.llava.prompts import conversation_text
from tests.llava_next_checkpoints import save_original

MEDIA = Path(os.environ.get("DUET_MEDIA", Path(__file__).parents[2] / ".." / "shared" / "media")) / "images"
PHOTOS = sorted(MEDIA.glob("*.jpg"))[:3]
BUDGET = Budget(72, 30, layers=(16, 24), ratios=(0.5, 0.0))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return load(save_original(tmp_path_factory.mktemp("next")))


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """A picture of two by two tiles, one of three in a column, one of two in a row."""
    paths = [str(tmp_path / f"{name}.png") for name in "abc"]
    for path, size in zip(paths, [(800, 600), (300, 900), (640, 300)], strict=True):
        Image.radial_gradient("L").resize(size).convert("RGB").save(path)
    return paths


def test_rows_of_different_crops_train_together(loaded, files):
    model, processor = loaded
    rows = [
        Row("0", (files[0], files[2]), (("<image><image>\nSame?", "No"),)),
        Row("1", (), (("Is it large?", "Yes"),)),
        Row("2", (files[1],), (("<image>\nWhat?", "A ring"),)),
    ]
    dataset = ConversationDataset(rows, find_asking(model, processor), max_length=8000)
    batch = collate([dataset[number] for number in range(3)], processor.tokenizer.pad_token_id, "right")
    assert batch["pixel_values"].shape == (3, 5, 3, 336, 336)
    assert batch["image_sizes"].tolist() == [[600, 800], [300, 640], [900, 300]]
    # base crop; rows and columns after unpadding, and a newline for each row
    expected = [2 * 576 + 36 * 49 + 22 * 49, 0, 576 + 72 * 25]
    assert (batch["input_ids"] == processor.image_token_id).sum(1).tolist() == expected
    duet.attach(model, "duet", BUDGET).train()
    loss = model(**batch).loss
    loss.backward()
    assert model.model.image_newline.grad.abs().sum() > 0
    model.zero_grad(set_to_none=True)
    duet.detach(model)
    model.eval()


def test_questions_about_pictures_of_different_crops_are_answered_in_one_batch(loaded, files):
    answerer = Answerer(*loaded)
    answerer.compress("duet", replace(BUDGET, ratios=(0.5, 0.25)))
    text = conversation_text("vicuna_v1", "<image>\nWhat is it?")
    rows = [answerer.encode(text, [file]) for file in files]
    together, _ = answerer.answer(rows, max_new_tokens=3)
    alone = [answerer.answer([row], max_new_tokens=3)[0][0] for row in rows]
    answerer.compress("none")
    assert [answer.text for answer in together] == [answer.text for answer in alone]
    # newlines are no visual tokens: 5, 4 and 3 crops of 102, half of them, a quarter
    assert [answer.kept for answer in together] == [(510, 255, 127), (408, 204, 102), (306, 153, 76)]


@pytest.mark.skipif(not PHOTOS, reason="no photographs (set DUET_MEDIA to their folder)")
@pytest.mark.parametrize("newlines", ["keep", "drop"])
def test_photographs(loaded, newlines):
    model, processor = loaded
    photos = [Image.open(path).convert("RGB") for path in PHOTOS]
    text = conversation_text("vicuna_v1", "<image>\n" * len(photos) + "What is it?")
    batch = processor(images=photos, text=text, return_tensors="pt")
    duet.attach(model, "duet", BUDGET, newlines=newlines)
    with duet.record(model) as trace:
        model.generate(**batch, max_new_tokens=2, do_sample=False)
    units = trace.reductions[0]
    assert len(units) >= 3 * len(photos)
    assert trace.entered == [102 * len(units)] == [sum(unit.kept.shape[1] for unit in units)]
    separators = trace.lengths[0][0] - trace.entered[0] - int((batch["input_ids"] != processor.image_token_id).sum())
    assert (separators > 0) == (newlines == "keep")
    assert torch.equal(trace.origins[0][:102, 0], torch.zeros(102, dtype=torch.long))
    duet.detach(model)
