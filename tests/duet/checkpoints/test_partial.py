"""Projector-only and LoRA checkpoints on a language model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from duet.checkpoints.files import CheckpointError
from duet.checkpoints.partial import merge_lora
from duet.llava.model.builder import load
from duet.train.build import merge_folder
from tests.llava_checkpoints import ORIGINAL, copy_of, edit_json

PROJECTOR = "model.mm_projector."
QUERY = "model.layers.0.self_attn.q_proj"


@pytest.fixture
def pieces(tmp_path: Path) -> tuple[Path, Path, dict[str, Tensor]]:
    """Folder with config and projector only, folder of the rest, all tensors."""
    base = copy_of(ORIGINAL, tmp_path)
    tensors = load_file(base / "model.safetensors")
    rest = {k: v for k, v in tensors.items() if not k.startswith(PROJECTOR)}
    save_file(rest, base / "model.safetensors", metadata={"format": "pt"})
    part = tmp_path / "part"
    part.mkdir()
    (part / "config.json").write_text((base / "config.json").read_text())
    torch.save({k: v for k, v in tensors.items() if k.startswith(PROJECTOR)}, part / "mm_projector.bin")
    return part, base, tensors


def write_lora(part: Path, **changes: object) -> tuple[Tensor, Tensor]:
    """Turn the projector-only folder into a LoRA one, as the original's trainer writes it; returns A and B."""
    torch.manual_seed(0)
    projector = torch.load(part / "mm_projector.bin", weights_only=True)
    torch.save({"base_model.model." + k: v for k, v in projector.items()}, part / "non_lora_trainables.bin")
    (part / "mm_projector.bin").unlink()
    a, b = torch.randn(4, 64), torch.randn(64, 4)
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none", **changes}
    (part / "adapter_config.json").write_text(json.dumps(settings))
    pair = {f"base_model.model.{QUERY}.lora_A.weight": a, f"base_model.model.{QUERY}.lora_B.weight": b}
    save_file(pair, part / "adapter_model.safetensors")
    return a, b


def test_projector_on_base(pieces: tuple[Path, Path, dict[str, Tensor]]):
    part, base, _ = pieces
    model, _ = load(part, model_base=base)
    whole, _ = load(ORIGINAL)
    assert all(torch.equal(v, whole.state_dict()[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(("changes", "scale"), [({}, 2.0), ({"use_rslora": True}, 4.0)])
def test_lora_on_base(pieces: tuple[Path, Path, dict[str, Tensor]], changes: dict, scale: float):
    part, base, tensors = pieces
    a, b = write_lora(part, **changes)
    model, _ = load(part, model_base=base)
    layer = model.model.language_model.layers[0].self_attn
    plain = tensors[f"{QUERY}.weight"].float()
    merged = (plain + scale * b @ a).to(torch.bfloat16).float()
    assert torch.equal(layer.q_proj.weight, merged)
    assert torch.equal(layer.k_proj.weight, tensors["model.layers.0.self_attn.k_proj.weight"].float())


def test_an_adapter_of_the_original_finds_its_base_and_merges(pieces: tuple[Path, Path, dict[str, Tensor]]):
    part, base, _ = pieces
    write_lora(part, base_model_name_or_path=str(base))
    given = load(part, model_base=base)[0].state_dict()
    assert all(torch.equal(value, given[name]) for name, value in load(part)[0].state_dict().items())
    merged = merge_folder(part, part.parent / "merged", dtype=torch.float32)
    assert all(torch.equal(value, given[name]) for name, value in load(merged)[0].state_dict().items())


def test_part_alone_asks_for_the_base(pieces: tuple[Path, Path, dict[str, Tensor]]):
    with pytest.raises(CheckpointError, match="name the language model with model_base"):
        load(pieces[0])


def test_whole_checkpoint_with_a_base(tmp_path: Path):
    folder = copy_of(ORIGINAL, tmp_path)
    with pytest.raises(CheckpointError, match="leave the base out"):
        load(folder, model_base=folder)


@pytest.mark.parametrize(("name", "value"), [("use_dora", True), ("bias", "all"), ("rank_pattern", {"q": 2})])
def test_other_lora_is_refused(pieces: tuple[Path, Path, dict[str, Tensor]], name: str, value: object):
    part, base, _ = pieces
    write_lora(part)
    edit_json(part / "adapter_config.json", **{name: value})
    with pytest.raises(CheckpointError, match=f"{name} = "):
        load(part, model_base=base)


def test_lora_of_another_model_is_refused():
    name = "base_model.model.model.x.lora_"
    adapter = {f"{name}A.weight": torch.ones(2, 3), f"{name}B.weight": torch.ones(4, 2)}
    with pytest.raises(CheckpointError, match=r"model\.x\.weight, which is \(4, 4\)"):
        merge_lora({"model.x.weight": torch.ones(4, 4)}, adapter, 1.0)
    with pytest.raises(CheckpointError, match=r"model\.x\.weight, which is absent"):
        merge_lora({}, adapter, 1.0)
    with pytest.raises(CheckpointError, match=r"\{'lora_A': \(2, 3\)\} do not fit"):
        merge_lora({"model.x.weight": torch.ones(4, 4)}, {f"{name}A.weight": torch.ones(2, 3)}, 1.0)


def test_adapter_with_whole_tensors_is_refused():
    with pytest.raises(CheckpointError, match=r"lm_head\.weight, which is not a lora_A or lora_B"):
        merge_lora({}, {"base_model.model.lm_head.weight": torch.ones(1)}, 1.0)
