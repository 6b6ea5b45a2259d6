"""Models that other libraries hold: peft's LoRA, accelerate's device hooks and offloading, pickle."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model
from accelerate.hooks import remove_hook_from_module

import duet
from duet.engine.attachment import is_attached
from tests.duet.engine.cases import CASES
from tests.families import FAMILIES
from tests.tiny_llava import collate, make_row, prompt_of, tiny_llava, twin

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
    """Two device names, so that accelerate hooks every block; both are the CPU."""
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


@pytest.mark.parametrize("first", ["attach", "offload"])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_offloaded_model_gives_what_one_in_memory_gives(family, first):
    """Every parameter is on the meta device until its module runs, as stock allows."""
    family = FAMILIES[family]
    batch = family.collate(family.prompts)
    wanted = family.attach(family.build())(**batch).logits
    model = family.build()
    for step in sorted(["attach", "offload"], key=lambda step: step != first):
        if step == "attach":
            family.attach(model)
        else:
            cpu_offload(model)
    assert all(parameter.is_meta for parameter in model.parameters())
    with torch.no_grad():
        torch.testing.assert_close(model(**batch).logits, wanted)
    duet.detach(model)
    with torch.no_grad():
        torch.testing.assert_close(model(**batch).logits, family.build()(**batch).logits)


@pytest.mark.parametrize("part", ["model.vision_tower", "model.language_model"])
def test_a_tower_or_a_decoder_on_disk(tiny, tmp_path, part):
    model = twin(tiny)
    disk_offload(model.get_submodule(part), tmp_path)
    wanted = CASES["duet"].attach(twin(tiny)).generate(**PROMPT, **GREEDY)
    assert torch.equal(CASES["duet"].attach(model).generate(**PROMPT, **GREEDY), wanted)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_attached_model_is_copied_and_pickled_with_its_compression(family):
    family = FAMILIES[family]
    model, batch = family.attach(family.build()), family.collate(family.prompts)
    tokens = model.generate(**batch, **GREEDY)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(file, weights_only=False)):
        assert torch.equal(other.generate(**batch, **GREEDY), tokens)
        for weight in other.lm_head.parameters():
            weight.data.zero_()
        assert not other(**batch).logits.any()
        duet.detach(other)
        assert not is_attached(other)
    assert torch.equal(model.generate(**batch, **GREEDY), tokens)


def test_another_process_can_read_a_pickled_model(tmp_path):
    """A fresh one: stock models cannot be pickled either once they have returned hidden states."""
    model = CASES["duet"].attach(tiny_llava())
    torch.save(model, tmp_path / "model.pt")
    torch.save((PROMPT, model(**PROMPT).logits), tmp_path / "wanted.pt")
    code = (
        "import sys, torch; model = torch.load(sys.argv[1] + '/model.pt', weights_only=False);"
        "prompt, wanted = torch.load(sys.argv[1] + '/wanted.pt');"
        "torch.testing.assert_close(model(**prompt).logits, wanted)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=Path(__file__).parents[3])
