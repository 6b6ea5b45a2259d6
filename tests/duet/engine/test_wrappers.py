"""Models that other libraries hold: peft's LoRA, accelerate's device hooks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from accelerate import dispatch_model
from accelerate.hooks import remove_hook_from_module

import duet
from tests.duet.engine.cases import CASES
from tests.tiny_llava import collate, make_row, prompt_of, twin

PROMPT = collate([prompt_of(make_row(1, seed=1)), prompt_of(make_row(2, 3, seed=2))])
LABELLED = collate([make_row(1, seed=1), make_row(0, seed=2)], labels=True)
GREEDY = {"max_new_tokens": 4, "do_sample": False}


@pytest.mark.parametrize("first", ["attach", "wrap"])
def test_lora_trains_under_compression(tiny, first):
    peft = pytest.importorskip("peft", reason="peft is not installed")
    targets = r".*language_model.*\.(q_proj|k_proj|v_proj)"
    config = peft.LoraConfig(r=2, target_modules=targets, modules_to_save=["multi_modal_projector"])
    model: Any = twin(tiny)
    wanted = CASES["duet"].attach(twin(tiny)).train()(**LABELLED).loss
    if first == "attach":
        CASES["duet"].attach(model)
    model = peft.get_peft_model(model, config)
    if first == "wrap":
        CASES["duet"].attach(model)
    loss = model.train()(**LABELLED).loss
    torch.testing.assert_close(loss, wanted)
    loss.backward()
    trained = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert any("lora_B" in name for name in trained) and any("multi_modal_projector" in name for name in trained)
    assert all("lora" in name or "modules_to_save" in name for name in trained)
    tokens = model.eval().generate(**PROMPT, **GREEDY)
    merged = model.merge_and_unload()
    assert torch.equal(merged.generate(**PROMPT, **GREEDY), tokens)
    duet.detach(merged)
    assert torch.equal(merged.generate(**PROMPT, **GREEDY), tiny.generate(**PROMPT, **GREEDY))


@pytest.mark.parametrize("first", ["attach", "dispatch"])
@pytest.mark.parametrize("last", ["detach", "remove"])
def test_device_hooks_stay_and_go_in_any_order(tiny, first, last):
    """Two devices by name, so that accelerate puts its hooks on every block; both are the CPU."""
    model = twin(tiny)
    stock = model(**PROMPT).logits
    wanted = CASES["duet"].attach(twin(tiny)).generate(**PROMPT, **GREEDY)
    places = {
        "model.vision_tower": "cpu",
        "model.multi_modal_projector": "cpu",
        "lm_head": "cpu",
        "model.language_model": "cpu",
    }
    if first == "attach":
        CASES["duet"].attach(model)
    dispatch_model(model, places, force_hooks=True)
    if first == "dispatch":
        CASES["duet"].attach(model)
    assert torch.equal(model.generate(**PROMPT, **GREEDY), wanted)
    if last == "detach":
        duet.detach(model)
        remove_hook_from_module(model, recurse=True)
    else:
        remove_hook_from_module(model, recurse=True)
        assert torch.equal(model.generate(**PROMPT, **GREEDY), wanted)
        duet.detach(model)
    assert torch.equal(model(**PROMPT).logits, stock)
    CASES["duet"].attach(model)
    assert torch.equal(model.generate(**PROMPT, **GREEDY), wanted)
