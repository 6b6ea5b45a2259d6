"""Names and config entries of the original layout."""

from __future__ import annotations

import json

import pytest
from transformers import LlavaConfig

from duet.checkpoints.files import CheckpointError
from duet.llava.model import original
from tests.llava_checkpoints import GOLDEN, HF, ORIGINAL

CONFIG = json.loads((ORIGINAL / "config.json").read_text())
TOWER = json.loads((GOLDEN / "clip_tiny" / "config.json").read_text())


@pytest.mark.parametrize(
    ("name", "hf"),
    [
        ("model.vision_tower.vision_tower.vision_model.pre_layrnorm.bias", "model.vision_tower.pre_layrnorm.bias"),
        ("model.mm_projector.0.weight", "model.multi_modal_projector.linear_1.weight"),
        ("model.mm_projector.2.bias", "model.multi_modal_projector.linear_2.bias"),
        ("model.layers.3.mlp.up_proj.weight", "model.language_model.layers.3.mlp.up_proj.weight"),
        ("model.norm.weight", "model.language_model.norm.weight"),
        ("lm_head.weight", "lm_head.weight"),
    ],
)
def test_names_both_ways(name: str, hf: str):
    assert original.to_hf_name(name) == hf
    assert original.to_original_name(hf) == name


def test_config_equals_the_converted_one():
    made = original.to_hf_config(CONFIG, TOWER, 511).to_dict()
    wanted = LlavaConfig.from_pretrained(HF).to_dict()
    for part in (made, wanted, *(c[p] for c in (made, wanted) for p in ("text_config", "vision_config"))):
        for name in ("dtype", "architectures", "transformers_version", "_name_or_path"):
            part.pop(name, None)
    assert made == wanted


def test_whole_clip_as_tower():
    made = original.to_hf_config(CONFIG, {"model_type": "clip", "vision_config": TOWER, "text_config": {}}, 511)
    assert made.vision_config.hidden_size == 32


def test_cls_patch_keeps_the_cls_token():
    made = original.to_hf_config({**CONFIG, "mm_vision_select_feature": "cls_patch"}, TOWER, 511)
    assert (made.vision_feature_select_strategy, made.image_seq_length) == ("full", 577)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mm_projector_type", "linear"),
        ("mm_projector_type", None),
        ("mm_projector_type", "mlp3x_gelu"),
        ("image_aspect_ratio", "anyres"),
        ("mm_use_im_start_end", True),
        ("mm_patch_merge_type", "spatial"),
        ("model_type", "llava_mpt"),
    ],
)
def test_inexpressible_is_refused_by_name(name: str, value: object):
    config = {**CONFIG, name: value}
    if value is None:
        del config[name]
        value = "linear"  # the original's default
    with pytest.raises(CheckpointError, match=f"{name} = {value!r}"):
        original.to_hf_config(config, TOWER, 511)


def test_unknown_tower_is_refused():
    with pytest.raises(CheckpointError, match="'siglip_vision_model'"):
        original.to_hf_config(CONFIG, {"model_type": "siglip_vision_model"}, 511)


def test_vocabulary_grows_to_a_block_of_64():
    assert original.to_hf_config(CONFIG, TOWER, 511).text_config.vocab_size == 512
    assert original.to_hf_config(CONFIG, TOWER, 512).text_config.vocab_size == 576
