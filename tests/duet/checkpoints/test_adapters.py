"""Adapter folders open like whole checkpoints: equal to the unmerged adapter, on the base that they name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import LlavaForConditionalGeneration

import duet
from duet.checkpoints.adapters import REST, base_of, is_adapter
from duet.checkpoints.files import CheckpointError
from duet.checkpoints.setting import Setting
from duet.engine.attachment import attached
from duet.loading import load_stock
from tests.llava_checkpoints import HF, ORIGINAL, copy_of

DECODER = r".*language_model\.layers\.\d+\.(self_attn|mlp)\.(q_proj|v_proj|up_proj)"
ORIGINAL_NAME = "base_model.model.model.mm_projector.0.bias"
STOCK_NAME = "base_model.model.model.multi_modal_projector.linear_1.bias"


def prompt(model: Any) -> dict[str, Tensor]:
    config = model.config
    side = config.vision_config.image_size
    ids = torch.tensor([[5, *[config.image_token_id] * config.image_seq_length, 7, 9, 11]])
    return {"input_ids": ids, "pixel_values": torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))}


@torch.no_grad()
def logits(model: Any) -> Tensor:
    return model(**prompt(model)).logits


def make_adapter(folder: Path, base: Path, rest: str | None = STOCK_NAME, **options: Any) -> Tensor:
    """Write an adapter of random weights (and a new projector bias); returns the logits of the unmerged model."""
    model = load_stock(str(base), device="cpu")[0]
    torch.manual_seed(0)
    settings = {"target_modules": DECODER, "r": 4, "lora_alpha": 8, "init_lora_weights": False}
    wrapped: Any = get_peft_model(model, LoraConfig(**{**settings, **options}))
    for name, value in wrapped.named_parameters():
        if "magnitude" in name:
            value.data *= 1.1
    wrapped.save_pretrained(folder)
    if rest is not None:
        bias = torch.linspace(-1, 1, len(model.model.multi_modal_projector.linear_1.bias))
        torch.save({rest: bias}, folder / REST)
        model.model.multi_modal_projector.linear_1.bias.data.copy_(bias)
    return logits(wrapped.eval())


@pytest.mark.parametrize(
    ("base", "rest", "options"),
    [
        (HF, STOCK_NAME, {}),
        (HF, None, {"use_dora": True}),
        (HF, ORIGINAL_NAME, {"use_rslora": True, "modules_to_save": ["lm_head"]}),
        (ORIGINAL, STOCK_NAME, {"rank_pattern": {"q_proj": 2}}),
    ],
)
def test_an_adapter_opens_as_its_merged_model(tmp_path: Path, base: Path, rest: str | None, options: dict) -> None:
    copy = copy_of(base, tmp_path)
    wanted = make_adapter(tmp_path / "adapter", copy, rest, **options)
    assert is_adapter(tmp_path / "adapter") and not is_adapter(copy)
    model, processor = duet.load(str(tmp_path / "adapter"), device="cpu")
    assert type(model) is LlavaForConditionalGeneration and not model.training
    assert not any("lora" in name for name, _ in model.named_modules())
    torch.testing.assert_close(logits(model), wanted, atol=2e-5, rtol=1e-4)
    assert (logits(model) - logits(load_stock(str(copy), device="cpu")[0])).abs().max() > 1e-2
    assert processor.tokenizer.padding_side == "left"
    assert model.config.name_or_path == str(tmp_path / "adapter")


def test_half_precision_weights_are_merged_in_float32(tmp_path: Path) -> None:
    copy = copy_of(HF, tmp_path)
    make_adapter(tmp_path / "adapter", copy)
    exact = duet.load(str(tmp_path / "adapter"), device="cpu")[0].state_dict()
    base = load_stock(str(copy), device="cpu")[0].state_dict()
    half = duet.load(str(tmp_path / "adapter"), device="cpu", dtype="bfloat16")[0].state_dict()
    for name, value in half.items():
        delta = exact[name] - base[name]
        rounded = (base[name].bfloat16().float() + delta).bfloat16()
        assert value.dtype == torch.bfloat16
        torch.testing.assert_close(value, rounded, atol=1e-4, rtol=2**-8)


def test_compression_comes_with_the_adapter(tmp_path: Path) -> None:
    copy = copy_of(HF, tmp_path)
    make_adapter(tmp_path / "adapter", copy)
    Setting("visionzip", duet.Budget(8, 2)).write(tmp_path / "adapter")
    model, _ = duet.load(str(tmp_path / "adapter"), device="cpu")
    assert attached(model).compression.budget == duet.Budget(8, 2)


def test_the_base_is_found_beside_named_or_given(tmp_path: Path) -> None:
    copy = copy_of(HF, tmp_path)
    wanted = make_adapter(tmp_path / "adapter", copy)
    config = tmp_path / "adapter" / "adapter_config.json"

    def name_base(name: str | None) -> None:
        config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": name}))

    name_base(f"../{copy.name}")
    assert Path(base_of(tmp_path / "adapter")).resolve() == copy
    name_base("/nowhere/base")
    with pytest.raises(CheckpointError, match=r"adapter for /nowhere/base, which is not here.*model_base"):
        duet.load(str(tmp_path / "adapter"))
    name_base(None)
    with pytest.raises(CheckpointError, match="names no base model"):
        duet.load(str(tmp_path / "adapter"))
    model, _ = duet.load(str(tmp_path / "adapter"), device="cpu", model_base=str(copy))
    torch.testing.assert_close(logits(model), wanted, atol=2e-5, rtol=1e-4)


def test_an_adapter_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    copy = copy_of(HF, tmp_path)
    make_adapter(tmp_path / "adapter", copy)
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "r": 2}))
    with pytest.raises(CheckpointError, match=r"does not fit its base model.*the model's is"):
        duet.load(str(tmp_path / "adapter"), device="cpu")
    make_adapter(tmp_path / "other", copy, "base_model.model.model.mm_projector.7.bias")
    with pytest.raises(CheckpointError, match=r"mm_projector\.7\.bias"):
        duet.load(str(tmp_path / "other"), device="cpu")
    (tmp_path / "other" / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"none of adapter_model\.safetensors"):
        duet.load(str(tmp_path / "other"), device="cpu")
