"""Checkpoints, processor and the README's entry point, on the golden model and on tiny ones saved in the test."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import Qwen2_5_VLForConditionalGeneration as Stock
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

import duet
from duet.checkpoints.qwen import Qwen2VLVideoProcessor
from duet.engine.attachment import is_attached
from duet.errors import UserError
from duet.qwen2_5_vl import Qwen2_5_VLForConditionalGeneration
from duet.qwen2_5_vl.processing import Qwen2_5_VLProcessor
from tests import golden_qwen as golden
from tests.tiny_qwen import collate, mixed_rows, tiny_qwen

WEIGHTS = golden.FOLDER / "weights_hf"
README = {"visionzip_enabled": True, "dominant_tokens": 100, "contextual_tokens": 20, "pdrop_enabled": True}
RATIOS = [0.5, 0.25]


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def loaded():
    return duet.load(str(WEIGHTS))


def copy_checkpoint(folder, tensors=None):
    """The golden checkpoint's small files, and these tensors or its own."""
    for file in WEIGHTS.iterdir():
        if file.suffix != ".safetensors":
            (folder / file.name).write_bytes(file.read_bytes())
    save_file(tensors or load_file(WEIGHTS / "model.safetensors"), folder / "model.safetensors")
    return folder


def test_load_gives_a_stock_model_and_attaches_what_is_asked_for(loaded):
    model, processor = loaded
    assert type(model) is Stock and model.dtype == torch.float32 and not is_attached(model)
    assert isinstance(processor, Qwen2_5_VLProcessor)
    budget = duet.Budget(100, 20, layers=(14, 21), ratios=(0.5, 0.25))
    other, _ = duet.load(str(WEIGHTS), method="duet", budget=budget, ratio_base="compounding")
    out = other.generate(**golden.prompt(), max_new_tokens=8, do_sample=False)
    wanted = golden.expected("duet_mod_100_20")["gen_ids"]
    assert out[0, -8:].tolist() == wanted.tolist()


@pytest.mark.parametrize("names", ["old", "new"])
def test_other_layouts_load_equal(tmp_path, loaded, names):
    """Text settings not nested, as on the hub; tensors under the names of older or newer versions of transformers."""
    tensors = {}
    for name, tensor in load_file(WEIGHTS / "model.safetensors").items():
        new = f"model.{name}" if name.startswith("visual.") else name.replace("model.", "model.language_model.", 1)
        tensors[new if names == "new" else name] = tensor
    folder = copy_checkpoint(tmp_path, tensors)
    config = json.loads((folder / "config.json").read_text())
    text = config.pop("text_config")
    text.pop("model_type")
    rope = text.pop("rope_parameters")
    text |= {
        "rope_theta": rope["rope_theta"],
        "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]},
    }
    config["vision_config"].pop("rope_parameters")
    (folder / "config.json").write_text(json.dumps({**text, **config}))
    model, _ = duet.load(str(folder))
    for (name, weight), wanted in zip(model.state_dict().items(), loaded[0].state_dict().values(), strict=True):
        assert torch.equal(weight, wanted), name


def test_tied_embeddings_and_qwen2_vl_load(tmp_path):
    for family in ("qwen2_5_vl", "qwen2_vl"):
        folder = tmp_path / family
        folder.mkdir()
        copy_checkpoint(folder)
        saved = tiny_qwen(family, tie=True)
        saved.resize_token_embeddings(512)  # as many as the tokenizer has tokens
        saved.save_pretrained(folder)
        assert "lm_head.weight" not in load_file(folder / "model.safetensors")
        theirs = json.loads((WEIGHTS / "config.json").read_text())
        placeholders = {name: theirs[name] for name in ("image_token_id", "video_token_id")}
        written = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**written, **placeholders}))
        model, processor = duet.load(str(folder))
        for name in placeholders:
            setattr(model.config, name, getattr(saved.config, name))
        batch = collate(mixed_rows())
        with torch.no_grad():
            assert torch.equal(model(**batch).logits, saved(**batch).logits)
        batch = processor(text=["<|video_pad|>?"], videos=[[picture(30, 30)] * 2], return_tensors="pt")
        assert ("second_per_grid_ts" in batch) == (family == "qwen2_5_vl")


def test_tensors_that_do_not_fit_are_listed(tmp_path):
    tensors = load_file(WEIGHTS / "model.safetensors")
    gone = tensors.pop("visual.blocks.3.attn.qkv.bias")
    tensors["visual.stranger"] = gone
    with pytest.raises(UserError, match=r"1 missing: model.visual.blocks.3.attn.qkv.bias; 1 unexpected:"):
        duet.load(str(copy_checkpoint(tmp_path, tensors)))


def test_prompts_are_expanded_by_the_size_of_each_picture(loaded):
    _, processor = loaded
    pictures = [picture(100, 80), picture(200, 60, 1)]
    content = [{"type": "image"}, {"type": "text", "text": "and"}, {"type": "image"}, {"type": "text", "text": "what"}]
    messages = [{"role": "user", "content": content}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    batch = processor(text=[text, "no picture"], images=pictures, padding=True, return_tensors="pt")
    grids = batch["image_grid_thw"]
    assert grids.tolist() == [[1, 6, 8], [1, 4, 14]]
    plain = processor.tokenizer(text).input_ids
    expanded = []
    sizes = iter(int(grid.prod()) // 4 for grid in grids)
    for token in plain:
        expanded += [token] * (next(sizes) if token == golden.IMAGE else 1)
    row = batch["input_ids"][0][batch["attention_mask"][0].bool()]
    assert row.tolist() == expanded
    assert torch.equal(batch["mm_token_type_ids"].bool(), batch["input_ids"] == golden.IMAGE)


def test_frames_become_patches_of_two():
    """A still video has the patches of its picture; an odd number of frames repeats the last one."""
    still, moved = picture(56, 56), picture(56, 56, 1)
    processor = Qwen2VLVideoProcessor(size={"shortest_edge": 56 * 56, "longest_edge": 56 * 56})
    single = Qwen2VLImageProcessorPil(size={"shortest_edge": 56 * 56, "longest_edge": 56 * 56})
    made = processor([[still] * 2, np.stack([still, still, moved])], return_tensors="pt")
    assert made["video_grid_thw"].tolist() == [[1, 4, 4], [2, 4, 4]]
    patches = made["pixel_values_videos"].split(16)
    for part, frame in zip(patches, (still, still, moved), strict=True):
        torch.testing.assert_close(part, single(frame, return_tensors="pt")["pixel_values"], atol=1e-6, rtol=0)


def test_videos_and_pictures_run_together(loaded):
    model, processor = loaded
    frames, still = [picture(90, 60, seed) for seed in range(5)], picture(140, 100, 9)
    text = "<|vision_start|><|video_pad|><|vision_end|> <|vision_start|><|image_pad|><|vision_end|> what?"
    batch = processor(
        text=[text], images=[still], videos=[frames], video_metadata=[{"fps": 4, "total_num_frames": 5}],
        return_tensors="pt",
    )  # fmt: skip
    assert batch["second_per_grid_ts"].tolist() == [0.5]
    duet.attach(model, "duet", duet.Budget(4, 2, layers=(14, 21), ratios=(0.5, 0.25)))
    with duet.record(model) as trace:
        model.generate(**batch, max_new_tokens=3, do_sample=False, num_beams=2)
    duet.detach(model)
    assert [unit.kept.shape[1] for unit in trace.reductions[0]] == [6, 6, 6, 6]


@pytest.mark.parametrize("name", ["ratio_list", "image_token_ratio_list"])
def test_the_readme_snippet(tmp_path, name):
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(str(WEIGHTS), dtype=torch.float32).eval()
    model.configure_duet(**README, layer_list=[14, 21], **{name: RATIOS})
    tokens = model.generate(**golden.prompt(), max_new_tokens=8, do_sample=False)
    assert tokens[0, -8:].tolist() == golden.expected("duet_fixed_100_20")["gen_ids"].tolist()
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["Qwen2_5_VLForConditionalGeneration"]
    saved, wanted = load_file(tmp_path / "model.safetensors"), load_file(WEIGHTS / "model.safetensors")
    assert saved.keys() == wanted.keys()


def test_configure_duet_switches_parts(loaded):
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(str(WEIGHTS), dtype=torch.float32).eval()
    for options, tag in (
        ({"pdrop_enabled": False}, "s1_mod_ratio"),
        ({"pdrop_enabled": False, "use_ori_visionzip": True}, "s1_ori_ratio"),
        ({"visionzip_enabled": False, "pdrop_enabled": False}, "baseline"),
    ):
        model.configure_duet(**options)
        tokens = model.generate(**golden.prompt(), max_new_tokens=8, do_sample=False)
        assert tokens[0, -8:].tolist() == golden.expected(tag)["gen_ids"].tolist()
    with pytest.raises(UserError, match="two names"):
        model.configure_duet(ratio_list=RATIOS, image_token_ratio_list=RATIOS)
