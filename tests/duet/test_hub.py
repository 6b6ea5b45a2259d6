"""A saved folder opens compressed: by `duet.load`, and by stock transformers that may run `custom_generate`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, pipeline

import duet
from duet import hub, shipped
from duet.engine.attachment import attached
from duet.errors import UserError

PROMPT = "USER: <image>\nWhat color is the bar? ASSISTANT:"
LONG = {"max_new_tokens": 6, "do_sample": False}


@pytest.fixture(scope="module")
def picture():
    draw, world = shipped.small_module("draw"), shipped.small_module("world")
    return Image.fromarray(draw.draw(world.sample_scene(world.rng(0, "demo", 9))))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    model, processor = duet.load("llava-mini", method="duet", budget=11.25, positions="keep")
    folder = duet.save(model, tmp_path_factory.mktemp("hub") / "small-duet", processor)
    return folder, model, processor


def inputs_of(processor, picture):
    return processor(images=picture, text=PROMPT, return_tensors="pt")


def prefill(model, inputs):
    with torch.no_grad(), duet.record(model) as trace:
        model.generate(**inputs, **LONG)
    return trace.lengths


def test_duet_load_attaches_what_was_saved(saved, picture):
    folder, model, processor = saved
    again, _ = duet.load(str(folder))
    inputs = inputs_of(processor, picture)
    assert prefill(again, inputs) == prefill(model, inputs)
    assert attached(again).setting.switches["positions"] == "keep"


@pytest.fixture
def stock(saved):
    return AutoModelForImageTextToText.from_pretrained(saved[0], trust_remote_code=True)


def spy(monkeypatch):
    seen = []
    inner = hub.attach
    monkeypatch.setattr(hub, "attach", lambda *args, **kwargs: seen.append(args[2]) or inner(*args, **kwargs))
    return seen


def test_stock_transformers_compresses(saved, stock, picture, monkeypatch):
    folder, model, processor = saved
    inputs, seen = inputs_of(processor, picture), spy(monkeypatch)
    assert torch.equal(stock.generate(**inputs, **LONG), model.generate(**inputs, **LONG))
    assert seen == [attached(model).compression.budget]
    with pytest.raises(ValueError, match="no compression is attached"):
        attached(stock)
    # the logits of the stock model are those of all tokens again
    plain = AutoModelForImageTextToText.from_pretrained(folder)
    assert torch.equal(stock(**inputs).logits, plain(**inputs).logits)


def test_another_budget_for_one_call(stock, saved, picture, monkeypatch):
    inputs, seen = inputs_of(saved[2], picture), spy(monkeypatch)
    stock.generate(**inputs, **LONG, duet_budget=33)
    assert seen == [33]


def test_an_attached_model_keeps_its_budget(stock, saved, picture):
    inputs = inputs_of(saved[2], picture)
    duet.attach(stock, "duet", 33)
    expected = type(stock).generate(stock, **inputs, **LONG)
    assert torch.equal(stock.generate(**inputs, **LONG), expected)
    with pytest.raises(UserError, match=r"duet\.detach it first"):
        stock.generate(**inputs, **LONG, duet_budget=11)


def test_a_folder_as_recipe_for_another_model(saved, picture):
    folder, _, processor = saved
    plain = AutoModelForImageTextToText.from_pretrained(shipped.default_model())
    with pytest.raises(UserError, match=r"no duet_config\.json beside it"):
        plain.generate(**inputs_of(processor, picture), custom_generate=str(folder), trust_remote_code=True)


@pytest.mark.parametrize("batch", [1, 2])
def test_the_pipeline_compresses(saved, picture, batch):
    folder, model, _ = saved
    processor = AutoProcessor.from_pretrained(folder, backend="pil")
    ask = pipeline("image-text-to-text", model=model, processor=processor)
    chat = [
        {
            "role": "user",
            "content": [{"type": "image", "image": picture}, {"type": "text", "text": "What color is the bar?"}],
        }
    ]
    with duet.record(model) as trace:
        answers = ask([chat] * batch, batch_size=batch, return_full_text=False, generate_kwargs=LONG)
    rows = [answer[0] if isinstance(answer, list) else answer for answer in answers]
    texts = [row["generated_text"] for row in rows]
    assert len(set(texts)) == 1 and texts[0].strip()
    assert len(trace.lengths) == 3


def test_the_card_has_what_the_hub_reads(saved):
    card = ModelCard.load(saved[0] / "README.md")
    assert card.data.pipeline_tag == "image-text-to-text" and card.data.library_name == "transformers"
    assert set(hub.TAGS) <= set(card.data.tags)
    text = card.text
    assert "**duet_c_all** keeps 11.2 of 100" in text and "switch `positions` | keep" in text
    assert "`LlavaForConditionalGeneration`" in text


def test_upload(saved, monkeypatch):
    calls = {}

    def upload(self, *, repo_id, folder_path, **kwargs):
        names = {path.relative_to(folder_path).as_posix() for path in Path(folder_path).rglob("*") if path.is_file()}
        calls.update(repo_id=repo_id, names=names, card=(Path(folder_path) / "README.md").read_text())
        return "https://hub/commit"

    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, **kwargs: calls.update(created=repo_id))
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    assert duet.push_to_hub(saved[1], "me/small-duet", saved[2]) == "https://hub/commit"
    assert calls["created"] == calls["repo_id"] == "me/small-duet"
    assert {"config.json", "model.safetensors", "duet_config.json", "custom_generate/generate.py"} <= calls["names"]
    assert 'duet.load("me/small-duet")' in calls["card"]


def test_without_compression_there_is_nothing_to_share(tmp_path):
    model, processor = duet.load("llava-mini")
    with pytest.raises(UserError, match=r"model\.save_pretrained saves a stock model"):
        duet.save(model, tmp_path, processor)
    duet.attach(model, "none")
    with pytest.raises(UserError, match="keeps all tokens"):
        duet.save(model, tmp_path, processor)
