"""`duet_config.json`: what is written, what is read, and what an attached model leaves beside its weights."""

from __future__ import annotations

import json
import logging
import pickle
from copy import deepcopy
from pathlib import Path

import pytest
import torch

import duet
from duet.checkpoints.files import CheckpointError
from duet.checkpoints.setting import FILE, Setting, find_setting, read_setting
from duet.engine.attachment import attached
from duet.errors import UserError
from tests.llava_checkpoints import HF, copy_of
from tests.tiny_llava import BUDGET, fill_salient, tiny_llava

RANGE = {"average": [3, 9]}


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    budget = duet.Budget(0.3, 5, layers=(0.5, 0.75), ratios=(0.5, 0.0), ratio_base="compounding")
    setting = Setting("duet_c", budget, {"positions": "keep"}, "clip", ("salient",), (None, RANGE, {"dominant": 4}))
    setting.write(tmp_path / "new")
    assert read_setting(tmp_path / "new") == setting
    assert find_setting(tmp_path / "new") == setting
    assert find_setting(tmp_path) is None and find_setting("") is None and find_setting("owner/absent") is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"metod": "duet"}, "metod, which this version"),
        ({"method": None}, "method = None"),
        ({"budget": 128}, "budget = 128"),
        ({"budget": {"dominannt": 1}}, "not the numbers of a budget"),
        ({"budget": {"dominant": 0}}, "not the numbers of a budget"),
        ({"switches": ["keep"]}, "switches"),
        ({"companion": 3}, "companion"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, change: dict, told: str) -> None:
    Setting("duet_c", BUDGET).write(tmp_path)
    file = tmp_path / FILE
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(CheckpointError, match=told):
        read_setting(tmp_path)


def test_an_attached_model_saves_its_setting_and_a_detached_one_does_not(tmp_path: Path) -> None:
    model = duet.attach(tiny_llava(), "duet", BUDGET, positions="keep")
    model.save_pretrained(tmp_path / "kept")
    assert read_setting(tmp_path / "kept") == Setting("duet_c_all", BUDGET, {"positions": "keep"})
    for twin in (deepcopy(model), pickle.loads(pickle.dumps(model))):
        twin.save_pretrained(tmp_path / "twin")
        assert (tmp_path / "twin" / FILE).exists()
    duet.detach(model)
    model.save_pretrained(tmp_path / "bare")
    duet.attach(model, "none").save_pretrained(tmp_path / "none")
    assert not (tmp_path / "bare" / FILE).exists() and not (tmp_path / "none" / FILE).exists()


def test_what_a_file_cannot_hold_is_asked_for_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = duet.attach(tiny_llava(), "duet", BUDGET, salient=fill_salient, text_guidance="salient")
    with caplog.at_level(logging.WARNING):
        model.save_pretrained(tmp_path)
    assert "cannot hold salient" in caplog.text
    again = type(model).from_pretrained(tmp_path)
    with pytest.raises(UserError, match="pass salient="):
        duet.attach(again)
    duet.attach(again, salient=fill_salient)
    assert attached(again).compression.salient is fill_salient


@pytest.fixture
def trained(tmp_path: Path) -> str:
    """A checkpoint that says it was trained with DUET."""
    folder = copy_of(HF, tmp_path)
    budget = duet.Budget(12, 4, layers=(2,), ratios=(0.5,))
    Setting("duet_c", budget, {"positions": "keep"}, trained=(None, RANGE)).write(folder)
    return str(folder)


def test_load_attaches_what_the_checkpoint_was_trained_with(trained: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        model, _ = duet.load(trained, device="cpu")
    assert "attached duet_c as it was trained" in caplog.text and "12 dominant + 4 contextual" in caplog.text
    found = attached(model)
    assert found.compression.budget == duet.Budget(12, 4, layers=(2,), ratios=(0.5,))
    assert found.compression.method == "duet_c" and not found.compression.renumber
    assert found.setting.trained == (None, RANGE)


def test_explicit_arguments_win(trained: str) -> None:
    model, _ = duet.load(trained, device="cpu", budget=duet.Budget(8, 2, layers=(1,), ratios=(0.5,)))
    assert attached(model).compression.method == "duet_c" and attached(model).compression.budget.dominant == 8
    assert not attached(model).compression.renumber
    model, _ = duet.load(trained, device="cpu", positions="renumber")
    assert attached(model).compression.renumber and attached(model).compression.budget.dominant == 12
    model, _ = duet.load(trained, "visionzip", duet.Budget(8, 2), device="cpu")
    assert attached(model).compression.method == "visionzip" and attached(model).compression.renumber
    model, _ = duet.load(trained, "none", device="cpu")
    assert attached(model).compression.reducer is None
    with pytest.raises(UserError, match="needs a budget"):
        duet.attach(model, "duet")
    duet.attach(model)  # the model knows its folder
    assert attached(model).compression.budget.dominant == 12


def test_a_method_that_is_not_here_is_named_with_the_checkpoint(tmp_path: Path) -> None:
    folder = copy_of(HF, tmp_path)
    Setting("of_a_plugin", BUDGET).write(folder)
    with pytest.raises(UserError, match="of_a_plugin"):
        duet.load(str(folder), device="cpu")


def test_loaded_and_attached_by_hand_answer_alike(trained: str) -> None:
    given, _ = duet.load(trained, device="cpu")
    by_hand, _ = duet.load(
        trained, "duet_c", duet.Budget(12, 4, layers=(2,), ratios=(0.5,)), positions="keep", device="cpu"
    )
    config = given.config
    ids = torch.tensor([[5, *[config.image_token_id] * config.image_seq_length, 7, 9]])
    pixels = torch.randn(1, 3, 336, 336, generator=torch.Generator().manual_seed(0))
    if pixels.shape[-1] != config.vision_config.image_size:
        pixels = pixels[..., : config.vision_config.image_size, : config.vision_config.image_size]
    with torch.no_grad():
        first, second = (model(input_ids=ids, pixel_values=pixels).logits for model in (given, by_hand))
    assert torch.equal(first, second)
