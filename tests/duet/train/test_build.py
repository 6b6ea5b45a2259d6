"""`duet train build`: language model + tower -> the stock model that LLaVA's first stage starts from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlavaForConditionalGeneration, LlavaNextForConditionalGeneration

from duet.budget import Budget
from duet.checkpoints.setting import Setting, read_setting
from duet.cli.main import main as command
from duet.errors import UserError
from duet.loading import load_stock
from duet.train.build import build_folder, is_language_model, stored_dtype
from tests import golden_video
from tests.llava_checkpoints import HF, ORIGINAL, copy_of, split_off_tower

VIDEO_PREFIX = "model.{0}.{0}."


def language_model(to: Path, source: Path = ORIGINAL, dtype: torch.dtype = torch.float32) -> tuple[Path, Path]:
    """The LLaMA inside a golden LLaVA, as it was before, and the CLIP tower beside it."""
    folder = copy_of(source, to)
    tower = to / "clip_tiny"
    split_off_tower(folder, tower)
    keep_text(folder, dtype)
    return folder, tower


def keep_text(folder: Path, dtype: torch.dtype) -> None:
    """Cut a LLaVA down to its language model, and its vocabulary to that of the tokenizer."""
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    kept = {}
    for name, value in load_file(folder / "model.safetensors").items():
        if not any(part in name for part in ("tower", "mm_projector", "newline")):
            rows = len(vocabulary) if "embed_tokens" in name or "lm_head" in name else len(value)
            kept[name] = value[:rows].to(dtype).contiguous()
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    file = folder / "config.json"
    settings = {n: v for n, v in json.loads(file.read_text()).items() if not n.startswith(("mm_", "image_", "tune_"))}
    file.write_text(json.dumps({**settings, "model_type": "llama", "vocab_size": len(vocabulary)}))


def reloaded(folder: Path) -> tuple[Any, Any]:
    """The saved folder, by transformers alone for the model and by us for both."""
    model, processor = load_stock(folder, device="cpu")
    return model, processor


def test_a_llava_from_its_parts(tmp_path: Path) -> None:
    base, tower = language_model(tmp_path)
    assert is_language_model(json.loads((base / "config.json").read_text()))
    out = build_folder(base, tmp_path / "built", str(tower), seed=3)
    plain, info = LlavaForConditionalGeneration.from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    model, processor = reloaded(out)
    tensors = model.state_dict()
    text = load_file(base / "model.safetensors")
    embeddings = tensors["model.language_model.embed_tokens.weight"]
    old = text["model.embed_tokens.weight"]
    assert len(embeddings) % 64 == 0 and torch.equal(embeddings[: len(old)], old)
    torch.testing.assert_close(embeddings[len(old)], old.mean(0))
    for name in ("model.layers.0.self_attn.q_proj.weight", "model.norm.weight"):
        assert torch.equal(tensors[name.replace("model.", "model.language_model.", 1)], text[name])
    seen = load_file(tower / "model.safetensors")
    layer = "encoder.layers.0.mlp.fc1.weight"
    assert torch.equal(tensors[f"model.vision_tower.{layer}"], seen[f"vision_model.{layer}"])

    torch.manual_seed(3)
    wide, hidden = model.config.vision_config.hidden_size, model.config.text_config.hidden_size
    first, second = torch.nn.Linear(wide, hidden), torch.nn.Linear(hidden, hidden)
    projector = plain.model.multi_modal_projector
    assert torch.equal(projector.linear_1.weight, first.weight) and torch.equal(projector.linear_1.bias, first.bias)
    assert torch.equal(projector.linear_2.weight, second.weight) and torch.equal(projector.linear_2.bias, second.bias)

    tokenizer = processor.tokenizer
    assert tokenizer.convert_tokens_to_ids("<image>") == model.config.image_token_id == len(old)
    assert tokenizer.pad_token == tokenizer.unk_token
    assert model.config.vision_feature_layer == -2 and processor.image_processor.do_pad


def test_the_projector_is_the_seed_s_and_files_appear_whole(tmp_path: Path) -> None:
    base, tower = language_model(tmp_path, dtype=torch.bfloat16)
    state = torch.get_rng_state()
    one, same, other = (
        load_stock(build_folder(base, tmp_path / name, str(tower), seed=seed), device="cpu", dtype="bfloat16")[0]
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert torch.equal(state, torch.get_rng_state())
    weight = "model.multi_modal_projector.linear_2.weight"
    assert torch.equal(one.state_dict()[weight], same.state_dict()[weight])
    assert not torch.equal(one.state_dict()[weight], other.state_dict()[weight])
    saved = load_file(tmp_path / "a" / "model.safetensors")
    assert {value.dtype for value in saved.values()} == {torch.bfloat16}
    assert saved.keys() == load_file(HF / "model.safetensors").keys()  # other readers go by names
    assert not list(tmp_path.glob("*.part"))
    with pytest.raises(UserError, match="a exists: choose a new folder"):
        build_folder(base, tmp_path / "a", str(tower))
    with pytest.raises(UserError, match="is a language model: name a tower"):
        build_folder(base, tmp_path / "d")
    with pytest.raises(UserError, match="kind is 'qwen2_vl'; a language model becomes one of llava, llava_next"):
        build_folder(base, tmp_path / "d", str(tower), kind="qwen2_vl")
    with pytest.raises(UserError, match="video_tower"):
        build_folder(base, tmp_path / "d", str(tower), kind="video_llava")


def test_a_llava_next_has_a_newline(tmp_path: Path) -> None:
    base, tower = language_model(tmp_path)
    assert command(
        ["train", "build", str(base), "--tower", str(tower), "--kind", "llava_next", "--output", str(tmp_path / "n")]
    ) == 0  # fmt: skip
    model, processor = reloaded(tmp_path / "n")
    assert isinstance(model, LlavaNextForConditionalGeneration)
    newline = model.model.image_newline
    assert 0.3 < float(newline.detach().std()) * len(newline) ** 0.5 < 3
    assert model.config.image_grid_pinpoints == [[672, 336], [336, 672], [672, 672], [336, 1008], [1008, 336]]
    assert type(processor).__name__ == "LlavaNextProcessor"


def test_a_video_llava_has_two_towers(tmp_path: Path) -> None:
    source = Path(shutil.copytree(golden_video.ORIGINAL, tmp_path / "whole"))
    tensors = load_file(source / "model.safetensors")
    towers = []
    for name in ("image_tower", "video_tower"):
        folder = tmp_path / name
        prefix = VIDEO_PREFIX.format(name)
        folder.mkdir()
        own = {"vision_model." + k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        save_file(own, folder / "model.safetensors", metadata={"format": "pt"})
        vision = json.loads((golden_video.HF / "config.json").read_text())["vision_config"]
        (folder / "config.json").write_text(json.dumps({"model_type": "LanguageBindImage", "vision_config": vision}))
        towers.append(folder)
    keep_text(source, torch.float32)
    out = build_folder(source, tmp_path / "v", str(towers[0]), video_tower=str(towers[1]), kind="video_llava")
    model, processor = load_stock(out, device="cpu")
    state = model.state_dict()
    for name in ("image_tower", "video_tower"):
        layer = "encoder.layers.0.mlp.fc1.weight"
        assert torch.equal(state[f"model.{name}.{layer}"], tensors[VIDEO_PREFIX.format(name) + layer])
    vocabulary = processor.tokenizer.get_vocab()
    assert (vocabulary["<image>"], vocabulary["<video>"]) == (model.config.image_token_id, model.config.video_token_id)


def test_other_layouts_become_stock_folders(tmp_path: Path) -> None:
    original = copy_of(ORIGINAL, tmp_path)
    out = build_folder(original, tmp_path / "stock")
    made = load_file(out / "model.safetensors")
    for name, value in load_file(HF / "model.safetensors").items():
        torch.testing.assert_close(made[name].float(), value.float())
    Setting("visionzip", Budget(8, 2)).write(original)
    again = build_folder(original, tmp_path / "again", dtype=torch.bfloat16)
    assert read_setting(again) == read_setting(original) and stored_dtype(again) == torch.bfloat16
    with pytest.raises(UserError, match="--video-tower is for a language model"):
        build_folder(original, tmp_path / "x", video_tower="y")


def test_the_command_names_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["train", "merge", str(HF), "--output", str(tmp_path / "m")]) == 2
    assert "no adapter_config.json: nothing to merge" in capsys.readouterr().err
    assert command(["train", "build", "--help"]) == 0
    assert "--tower" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command(["train", "--help"])
    assert "duet train RECIPE" in capsys.readouterr().out
