"""The small model is a stock Hugging Face folder; its tokenizer and chat template say what `llava.prompts` says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoProcessor, CLIPVisionModel, LlavaForConditionalGeneration

from duet.llava.prompts import OPTION_LETTER, SHORT_ANSWER, SYSTEM, vicuna_v1
from playground.mini.build_model import build_model, build_processor
from playground.mini.tokenizer import train_tokenizer
from playground.mini.train_tower import PHRASES, ContrastiveTower, batch_of, tower_config
from playground.mini.world import rng, sample_scene

TEXTS = ["What color is the ring?", "red", "Is there a ring?", "Yes", "A. red", "B. blue"] * 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tokenizer = train_tokenizer(TEXTS)
    build_model(tokenizer, CLIPVisionModel(tower_config()), seed=0).save_pretrained(folder)
    build_processor(tokenizer).save_pretrained(folder)
    return folder


def test_loads_as_stock_llava_and_answers(folder: Path) -> None:
    model, info = LlavaForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    processor = AutoProcessor.from_pretrained(folder, backend="pil")
    picture = torch.zeros(80, 80, 3, dtype=torch.uint8).numpy()
    batch = processor(images=picture, text=vicuna_v1("<image>\nIs there a ring?"), return_tensors="pt")
    assert (batch["input_ids"] == model.config.image_token_id).sum() == 100
    assert model.generate(**batch, max_new_tokens=3).shape[1] > batch["input_ids"].shape[1]
    assert model.config.text_config.num_hidden_layers == 8


def test_chat_template_equals_the_prompt_functions(folder: Path) -> None:
    processor = AutoProcessor.from_pretrained(folder, backend="pil")
    chat = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Is there a ring?"}]},
        {"role": "assistant", "content": "Yes"},
        {"role": "user", "content": "What color is it?"},
    ]
    expected = vicuna_v1([("<image>\nIs there a ring?", "Yes"), ("What color is it?", None)])
    assert processor.apply_chat_template(chat) == expected


def test_fixed_phrases_are_one_token_and_any_text_survives() -> None:
    tokenizer = train_tokenizer(TEXTS)
    for phrase in (SYSTEM, f"\n{SHORT_ANSWER}", f"\n{OPTION_LETTER}"):
        assert len([token for token in tokenizer.tokenize(phrase) if token not in ("▁", "\n")]) == 1
    for text in ("What color is the ring?", "Zürich costs 5 €!", "a\nb"):
        assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


def test_tower_learns_one_batch() -> None:
    torch.manual_seed(0)
    model = ContrastiveTower()
    pixels, labels, pairs = batch_of([sample_scene(rng(0, "test", index)) for index in range(8)])
    assert labels.max() < len(PHRASES)
    assert ((pairs[..., 0] >= 0).sum(1) >= 5).all()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(6):
        loss = model(pixels, labels, pairs)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.5
