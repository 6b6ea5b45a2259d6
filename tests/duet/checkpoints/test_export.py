"""`duet export`: the same tensors under the names of another program."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import duet
from duet.checkpoints.export import export, with_vision_model
from duet.checkpoints.files import CheckpointError
from duet.cli.main import main
from duet.errors import UserError
from tests.small_world import random_model
from tests.tiny_qwen import tiny_qwen


@pytest.mark.parametrize(
    ("saved", "read"),
    [
        ("vision_tower.embeddings.class_embedding", "vision_tower.vision_model.embeddings.class_embedding"),
        ("model.vision_tower.pre_layrnorm.bias", "model.vision_tower.vision_model.pre_layrnorm.bias"),
        ("vision_tower.vision_model.encoder.layers.0.mlp.fc1.bias",) * 2,
        ("language_model.model.norm.weight",) * 2,
        ("image_newline",) * 2,
    ],
)
def test_names(saved, read):
    assert with_vision_model(saved) == read


def same_weights(first: dict, second: dict) -> bool:
    return all(torch.equal(tensor, second[with_vision_model(name)]) for name, tensor in first.items())


def test_a_copy_has_vllm_s_names_and_loads_here_too(tmp_path, capsys):
    source, to = Path(random_model()), tmp_path / "copy"
    assert main(["export", str(source), "--layout", "vllm", "-o", str(to)]) == 0
    assert "tensors renamed" in capsys.readouterr().out
    before, after = load_file(source / "model.safetensors"), load_file(to / "model.safetensors")
    assert len(before) == len(after) and same_weights(before, after)
    towers = [name for name in after if "vision_tower" in name]
    assert towers and all(name.startswith("vision_tower.vision_model.") for name in towers)
    assert {file.name for file in to.iterdir()} == {file.name for file in source.iterdir()}
    first, second = (duet.load(str(folder), device="cpu")[0].state_dict() for folder in (source, to))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_shards_keep_their_files_and_get_an_index(tmp_path):
    model, _ = duet.load(random_model(), device="cpu")
    model.save_pretrained(tmp_path / "shards", max_shard_size="300KB")
    files = sorted(file.name for file in (tmp_path / "shards").glob("*.safetensors"))
    assert len(files) > 1
    export(tmp_path / "shards", tmp_path / "copy", "vllm")
    assert sorted(file.name for file in (tmp_path / "copy").glob("*.safetensors")) == files
    places = json.loads((tmp_path / "copy" / "model.safetensors.index.json").read_text())["weight_map"]
    for name, file in places.items():
        assert name in load_file(tmp_path / "copy" / file)


def test_qwen_s_names_are_right_already(tmp_path):
    tiny_qwen().save_pretrained(tmp_path / "qwen")
    assert export(tmp_path / "qwen", tmp_path / "copy", "vllm") == 0


def test_refusals(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UserError, match="is not empty"):
        export(random_model(), tmp_path / "full", "vllm")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "video_llava"}')
    with pytest.raises(CheckpointError, match=r"video_llava.*vllm has names for llava"):
        export(tmp_path / "other", tmp_path / "new", "vllm")
    (tmp_path / "other" / "config.json").write_text('{"model_type": "llava", "mm_vision_tower": "clip"}')
    with pytest.raises(CheckpointError, match="original layout"):
        export(tmp_path / "other", tmp_path / "new", "vllm")
