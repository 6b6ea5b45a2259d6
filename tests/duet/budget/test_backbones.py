"""Backbone: sizes read from configurations are those of the named ones."""

import json
from pathlib import Path

import pytest

from duet.budget import BACKBONES, Backbone, Budget, find_backbone
from duet.errors import UserError

# What the hub's llava-1.5-7b-hf says: only what differs from the defaults of the configuration classes.
VICUNA_7B = {"model_type": "llama", "vocab_size": 32000}
CLIP_L = {
    "hidden_size": 1024,
    "image_size": 336,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "patch_size": 14,
}
LLAVA = {"model_type": "llava", "vision_feature_layer": -2, "text_config": VICUNA_7B, "vision_config": CLIP_L}
MINI = Path(__file__).parents[3] / "playground" / "mini" / "checkpoints"


def sizes(backbone: Backbone) -> tuple:
    return backbone.tower, backbone.projector, backbone.decoder, backbone.patches, backbone.cls, backbone.cls_enters


def test_a_sparse_config_file_gives_the_named_backbone(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAVA))
    for path in (tmp_path, tmp_path / "config.json", str(tmp_path)):
        assert sizes(Backbone.from_config(path)) == sizes(BACKBONES["llava15"])


def test_a_config_object_gives_the_same_as_its_file(tmp_path):
    from transformers import LlavaConfig

    config = LlavaConfig(text_config=VICUNA_7B, vision_config={**CLIP_L, "model_type": "clip_vision_model"})
    config.save_pretrained(tmp_path)
    assert sizes(Backbone.from_config(config)) == sizes(BACKBONES["llava15"])
    assert sizes(Backbone.from_config(tmp_path)) == sizes(BACKBONES["llava15"])


def test_crops_and_the_13b_text_model():
    crops = Backbone.from_config({**LLAVA, "model_type": "llava_next"}, pictures=5)
    assert (sizes(crops), crops.pictures) == (sizes(BACKBONES["llavanext"]), 5)
    text = {"hidden_size": 5120, "intermediate_size": 13824, "num_attention_heads": 40, "num_hidden_layers": 40}
    assert sizes(Backbone.from_config({**LLAVA, "text_config": text})) == sizes(BACKBONES["llava15_13b"])


@pytest.mark.parametrize("folder", sorted(MINI.glob("*/")) or [None])
def test_the_small_model_has_the_sizes_of_its_name(folder):
    if folder is None:
        pytest.skip("no checkpoint in playground/mini/checkpoints")
    assert sizes(Backbone.from_config(folder)) == sizes(BACKBONES["mini"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "opt"}, "model_type is 'opt'; sizes can be read for llava"),
        ({"model_type": "llava", "mm_vision_tower": "x"}, "vision_config is missing"),
    ],
)
def test_configs_that_do_not_say_enough(values, message):
    with pytest.raises(UserError, match=message):
        Backbone.from_config(values)


def test_files_that_are_missing_or_broken_are_named(tmp_path):
    with pytest.raises(UserError, match=r"no such file: .*nowhere"):
        Backbone.from_config(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json is not valid JSON"):
        Backbone.from_config(tmp_path)


def test_prompts_of_other_sizes():
    backbone = find_backbone("qwen2_5_vl").with_patches(1280)
    assert Budget().average(backbone) == 1280
    assert find_backbone("llavanext").with_patches(576, pictures=3).full == 3 * 576
    with pytest.raises(UserError, match="nothing to reduce"):
        backbone.with_patches(0)
