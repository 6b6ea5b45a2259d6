"""Backbone: sizes read from configurations are those of the named ones."""

import json
from pathlib import Path

import pytest
import torch

from duet.budget import BACKBONES, Backbone, Budget, Decoder, Tower, find_backbone
from duet.errors import UserError
from tests.tiny_qwen import tiny_qwen
from tests.tiny_qwen3 import tiny_qwen3

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
    crops = Backbone.from_config({**LLAVA, "model_type": "llava_next"})
    assert (sizes(crops), crops.pictures) == (sizes(BACKBONES["llavanext"]), 5)
    text = {"hidden_size": 5120, "intermediate_size": 13824, "num_attention_heads": 40, "num_hidden_layers": 40}
    assert sizes(Backbone.from_config({**LLAVA, "text_config": text})) == sizes(BACKBONES["llava15_13b"])


# What differs between the text models that LLaVA-NeXT comes with, as the hub's files say it, and their decoders.
NEXT = {
    "mistral": ({"model_type": "mistral", "vocab_size": 32064}, Decoder(32, 4096, 14336, 32, 8, 128, 32064)),
    "llama3": (
        {"model_type": "llama", "intermediate_size": 14336, "num_key_value_heads": 8, "vocab_size": 128320},
        Decoder(32, 4096, 14336, 32, 8, 128, 128320),
    ),
    "vicuna": ({"model_type": "llama", "vocab_size": 32064}, Decoder(32, 4096, 11008, 32, 32, 128, 32064)),
}


@pytest.mark.parametrize("name", NEXT)
def test_llava_next_text_models(name):
    from transformers import LlavaNextConfig

    text, decoder = NEXT[name]
    values = {**LLAVA, "model_type": "llava_next", "text_config": text}
    assert Backbone.from_config(values).decoder == decoder
    whole = LlavaNextConfig(text_config=text, vision_config={**CLIP_L, "model_type": "clip_vision_model"})
    assert sizes(Backbone.from_config(whole)) == sizes(Backbone.from_config(values))
    crop = Backbone.from_config(whole, pictures=1)
    assert Budget().kv_bytes(crop, text=0)[0] == 576 * 2 * decoder.kv_heads * 128 * 2


def qwen_files(size: str) -> dict:
    """The hub's config.json of Qwen2.5-VL: text fields flat in the file, some of the tower's under older names."""
    text = {
        "3b": [2048, 11008, 36, 16, 2, 151936, True],
        "7b": [3584, 18944, 28, 28, 4, 152064, False],
        "32b": [5120, 27648, 64, 40, 8, 152064, False],
        "72b": [8192, 29568, 80, 64, 8, 152064, False],
    }[size]
    names = ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"]
    eyes = {
        "hidden_size": 1280,
        "out_hidden_size": text[0],
        "in_chans": 3,
        "spatial_patch_size": 14,
        "window_size": 112,
    }
    eyes |= {"intermediate_size": 3456 if size in ("32b", "72b") else 3420}
    fields = dict(zip([*names, "vocab_size", "tie_word_embeddings"], text, strict=True))
    return {"model_type": "qwen2_5_vl", **fields, "vision_config": eyes}


@pytest.mark.parametrize("size", ["3b", "7b", "32b", "72b"])
def test_qwen2_5_vl_of_every_size_flat_and_nested(size, tmp_path):
    from transformers import Qwen2_5_VLConfig

    values = qwen_files(size)
    backbone = Backbone.from_config(values)
    width, layers, heads = (values[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads"))
    assert (backbone.decoder.width, backbone.decoder.layers, backbone.decoder.head_dim) == (
        width,
        layers,
        width // heads,
    )
    assert backbone.projector == ((5120, 5120), (5120, width))
    assert (backbone.tower.window, backbone.tower.full_layers) == (64, 4)
    assert (backbone.patches, backbone.cls, backbone.capped) == (None, False, True)
    if size == "7b":
        assert sizes(backbone) == sizes(BACKBONES["qwen2_5_vl"])
    config = Qwen2_5_VLConfig(**values)  # nested, and only what differs from its classes once it is saved
    config.save_pretrained(tmp_path)
    assert sizes(Backbone.from_config(config)) == sizes(Backbone.from_config(tmp_path)) == sizes(backbone)


def test_qwen2_vl_has_no_windows_and_a_plain_mlp():
    values = {**qwen_files("7b"), "model_type": "qwen2_vl", "vision_config": {"hidden_size": 3584, "in_chans": 3}}
    backbone = Backbone.from_config(values)
    assert backbone.tower == Tower(32, 1280, 5120, 16, patch_values=3 * 2 * 14 * 14, patches_per_token=4)
    assert backbone.projector == ((5120, 5120), (5120, 3584))


#: The hub's config.json of Qwen3-VL: width, MLP, layers, heads and their width, and the tower of the size.
QWEN3 = {
    "2b": ([2048, 6144, 28, 16, 8, 128], [24, 1024, 4096, [5, 11, 17]]),
    "4b": ([2560, 9728, 36, 32, 8, 128], [24, 1024, 4096, [5, 11, 17]]),
    "8b": ([4096, 12288, 36, 32, 8, 128], [27, 1152, 4304, [8, 16, 24]]),
    "32b": ([5120, 25600, 64, 64, 8, 128], [27, 1152, 4304, [8, 16, 24]]),
}


@pytest.mark.parametrize("size", QWEN3)
def test_qwen3_vl_of_every_size(size, tmp_path):
    from transformers import Qwen3VLConfig

    text, eyes = QWEN3[size]
    names = ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"]
    levels = ["depth", "hidden_size", "intermediate_size", "deepstack_visual_indexes"]
    values = {
        "model_type": "qwen3_vl",
        "text_config": dict(zip([*names, "head_dim"], text, strict=True)),
        "vision_config": {**dict(zip(levels, eyes, strict=True)), "out_hidden_size": text[0]},
    }
    backbone = Backbone.from_config(values)
    width, merged = text[0], 4 * eyes[1]
    assert backbone.decoder == Decoder(text[2], width, text[1], text[3], text[4], 128, 151936)
    assert backbone.tower == Tower(eyes[0], eyes[1], eyes[2], 16, patch_values=3 * 2 * 16 * 16, patches_per_token=4)
    assert backbone.projector == ((merged, merged), (merged, width)) * 4
    assert (backbone.patches, backbone.cls, backbone.capped) == (None, False, True)
    if size == "8b":
        assert sizes(backbone) == sizes(BACKBONES["qwen3_vl"])
    config = Qwen3VLConfig(**values)
    config.save_pretrained(tmp_path)
    assert sizes(Backbone.from_config(config)) == sizes(Backbone.from_config(tmp_path)) == sizes(backbone)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen2_vl", "qwen3_vl"])
def test_tiny_qwen_sizes_are_those_of_its_weights(family):
    model = tiny_qwen3() if family == "qwen3_vl" else tiny_qwen(family)
    backbone = Backbone.from_config(model.config)
    tower, block = model.model.visual, model.model.visual.blocks[0]
    mergers = [tower.merger, *getattr(tower, "deepstack_merger_list", ())]
    linear = [one for merger in mergers for one in merger.modules() if isinstance(one, torch.nn.Linear)]
    assert backbone.projector == tuple((layer.in_features, layer.out_features) for layer in linear)
    assert backbone.tower.patch_values == tower.patch_embed.proj.weight[0].numel()
    assert backbone.tower.layers == len(tower.blocks)
    mlp = [module for module in block.mlp.modules() if isinstance(module, torch.nn.Linear)]
    assert (backbone.tower.mlp_matmuls, backbone.tower.mlp_width) == (len(mlp), mlp[0].out_features)
    assert backbone.tower.full_layers == (2 if family == "qwen2_5_vl" else 0)
    assert backbone.tower.window == (4 * 4 if family == "qwen2_5_vl" else 0)
    decoder = backbone.decoder
    assert (decoder.kv_heads, decoder.heads, decoder.vocabulary) == (2, 4, model.lm_head.out_features)


@pytest.mark.parametrize("folder", sorted(set(MINI.glob("*/")) - {MINI / "llava-mini-video"}) or [None])
def test_the_small_model_has_the_sizes_of_its_name(folder):
    if folder is None:
        pytest.skip("no checkpoint in playground/mini/checkpoints")
    assert sizes(Backbone.from_config(folder)) == sizes(BACKBONES["mini"])


@pytest.mark.skipif(not (MINI / "llava-mini-video").exists(), reason="no checkpoint in playground/mini/checkpoints")
def test_the_small_video_model_has_eight_frames_of_25_patches_and_cls():
    backbone = Backbone.from_config(MINI / "llava-mini-video")
    assert (backbone.pictures, backbone.full, backbone.decoder.layers) == (8, 208, 8)


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
