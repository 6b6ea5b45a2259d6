"""LLaVA-NeXT from both layouts, on Vicuna, Mistral and LLaMA 3: weights, processor, prompts, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlavaNextForConditionalGeneration, LlavaNextProcessor, MistralConfig

import duet
from duet.checkpoints.files import CheckpointError
from duet.errors import UserError
from duet.llava.model import original
from duet.llava.model.builder import load, load_pretrained_model
from duet.llava.prompts import conversation_of
from duet.visionzip import visionzip
from tests.llava_checkpoints import edit_json, edit_tensors
from tests.llava_next_checkpoints import NEWLINE, save_hf, save_original

LAYOUTS = pytest.mark.parametrize("save", [save_hf, save_original], ids=["hf", "original"])
QUESTION = "USER: <image>\nWhat? ASSISTANT:"


def picture(width: int = 800, height: int = 600) -> Image.Image:
    return Image.radial_gradient("L").resize((width, height)).convert("RGB")


def same_weights(one: Any, two: Any) -> bool:
    first, second = one.state_dict(), two.state_dict()
    return first.keys() == second.keys() and all(torch.equal(v, second[k]) for k, v in first.items())


def test_layouts_load_equal(tmp_path):
    (hf, hf_processor), (first, processor) = load(save_hf(tmp_path / "hf")), load(save_original(tmp_path / "original"))
    assert type(hf) is type(first) is LlavaNextForConditionalGeneration
    assert type(hf_processor) is type(processor) is LlavaNextProcessor
    assert same_weights(hf, first) and not first.training
    assert (first.model.image_newline == NEWLINE).all()
    ours, wanted = first.config.to_dict(), hf.config.to_dict()
    for entry in ("architectures", "transformers_version", "_name_or_path", "dtype"):
        for part in (ours, wanted, ours["vision_config"], wanted["vision_config"]):
            part.pop(entry, None)
    assert ours == wanted
    one, two = (maker(images=picture(), text=QUESTION, return_tensors="pt") for maker in (hf_processor, processor))
    assert torch.equal(one["pixel_values"], two["pixel_values"])
    assert one["image_sizes"].tolist() == two["image_sizes"].tolist() == [[600, 800]]


@LAYOUTS
def test_the_original_entry_points(save, tmp_path):
    folder = str(save(tmp_path))
    tokenizer, model, image_processor, context_len = load_pretrained_model(folder, None, "llava-v1.6-7b")
    _, processor = duet.load(folder)
    batch = processor(images=picture(), text=QUESTION, return_tensors="pt")
    pixels = image_processor(picture(), return_tensors="pt")
    assert torch.equal(pixels["pixel_values"], batch["pixel_values"])
    assert tokenizer.convert_tokens_to_ids("<image>") == 511 and context_len == 2048
    visionzip(model, dominant=170, contextual=35)
    with duet.record(model) as trace:
        model.generate(**batch, max_new_tokens=2, do_sample=False)
    # 600 x 800 fills two by two tiles of 24 x 24 patches but for 12 of 48 rows
    assert [unit.assign.shape[1] for unit in trace.reductions[0]] == [576, *[18 * 24] * 4]
    assert trace.entered == [5 * 205]
    assert [len(stage.kept[0]) for stage in trace.stages] == [512, 0]


@LAYOUTS
def test_duet_load_and_a_named_budget(save, tmp_path):
    model, processor = duet.load(str(save(tmp_path)), method="duet", budget="llavanext_320", newlines="drop")
    batch = processor(images=[picture(), picture(336, 1000)], text=f"<image>{QUESTION}", return_tensors="pt")
    with duet.record(model) as trace, torch.no_grad():
        model(**batch)
    # 5 and 4 crops of 72 + 30
    assert trace.entered == [9 * 102]
    assert len(trace.reductions[0]) == 9


def test_duet_load_pads_batches_on_the_left(tmp_path):
    """`generate` reads the last column; a checkpoint may say otherwise."""
    path = save_hf(tmp_path) / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "padding_side": "right"}))
    _, processor = duet.load(str(path.parent))
    assert processor.tokenizer.padding_side == "left"


def test_newer_names_of_tensors(tmp_path):
    """What transformers writes has the names of the checkpoints on the hub; those of its modules are taken, too."""
    folder = save_hf(tmp_path)
    assert {"image_newline", "language_model.lm_head.weight"} < load_file(folder / "model.safetensors").keys()
    wanted = load(folder)[0]
    tensors = {name: tensor.contiguous() for name, tensor in wanted.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert same_weights(load(folder)[0], wanted)


@LAYOUTS
def test_saved_files_are_stock(save, tmp_path):
    model, processor = load(save(tmp_path))
    visionzip(model, 20, 7).save_pretrained(tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    again, info = LlavaNextForConditionalGeneration.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not any(info.values()) and same_weights(model, again)
    reloaded, second = load(tmp_path / "saved")
    assert same_weights(model, reloaded)
    first, other = (maker(images=picture(), text=QUESTION, return_tensors="pt") for maker in (processor, second))
    assert all(torch.equal(first[name], other[name]) for name in first)


def test_mistral(tmp_path):
    """Grouped heads; a window that config.json switches off with null stays off."""
    folder = save_original(tmp_path)
    changes = {"num_key_value_heads": 2, "rope_theta": 1e6, "model_type": "llava_mistral"}
    edit_json(folder / "config.json", **changes)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "sliding_window": None}))
    tensors = load_file(folder / "model.safetensors")
    halves = {name.replace(".", "__"): tensor[:32] for name, tensor in tensors.items()
              if ".self_attn.k_proj" in name or ".self_attn.v_proj" in name if "vision_tower" not in name}  # fmt: skip
    edit_tensors(folder, **halves)
    model, processor = load(folder)
    text = model.config.text_config
    assert isinstance(text, MistralConfig)
    assert (text.sliding_window, text.num_key_value_heads, text.rope_parameters["rope_theta"]) == (None, 2, 1e6)
    assert conversation_of(model.config, processor.tokenizer) == "mistral_instruct"
    visionzip(model, 72, 30)
    batch = processor(images=picture(100, 300), text="[INST] <image>\nWhat? [/INST]", return_tensors="pt")
    assert model.generate(**batch, max_new_tokens=2, do_sample=False).shape[0] == 1


def byte_level_tokenizer(folder: Path) -> None:
    """As of LLaMA 3: bytes, marks of its conversation, no unknown token; 511 pieces."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*alphabet, *(f"{a}{b}" for a in alphabet for b in alphabet)][:507]
    tokenizer = Tokenizer(models.BPE(vocab={piece: number for number, piece in enumerate(pieces)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    marks = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    tokenizer.add_special_tokens(marks)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[(marks[0], tokenizer.token_to_id(marks[0]))]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": marks[0], "eos_token": marks[3]}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def test_llama_3(tmp_path):
    folder = save_original(tmp_path)
    byte_level_tokenizer(folder)
    model, processor = load(folder)
    tokenizer = processor.tokenizer
    assert conversation_of(model.config, tokenizer) == "llava_llama_3"
    assert processor.image_token_id == model.config.image_token_id == 511
    assert model.generation_config.eos_token_id == [2, tokenizer.convert_tokens_to_ids("<|eot_id|>")]
    assert tokenizer.pad_token == "<|eot_id|>"
    ids = tokenizer("a <image>\nb").input_ids
    assert tokenizer.convert_ids_to_tokens(ids) == ["<|begin_of_text|>", "a", "Ġ", "<image>", "Ċ", "b"]
    visionzip(model, 72, 30)
    batch = processor(images=picture(100, 300), text="<image>\nWhat?", return_tensors="pt")
    assert model.generate(**batch, max_new_tokens=2, do_sample=False).shape[0] == 1


def test_pinpoints_of_the_original_are_widths_and_heights(tmp_path):
    folder = save_original(tmp_path)
    edit_json(folder / "config.json", image_grid_pinpoints="[(336, 672), (1008, 336)]")
    model, processor = load(folder)
    assert model.config.image_grid_pinpoints == [[672, 336], [336, 1008]]
    for size, crops in (((900, 300), 4), ((300, 600), 3)):
        assert processor(images=picture(*size), text="<image>", return_tensors="pt")["pixel_values"].shape[1] == crops


def test_processor_is_put_right(tmp_path):
    folder = save_hf(tmp_path)
    settings = json.loads((folder / "processor_config.json").read_text())
    settings["image_processor"]["image_grid_pinpoints"] = [[336, 336]]
    settings |= {"patch_size": None, "num_additional_image_tokens": 0, "vision_feature_select_strategy": None}
    (folder / "processor_config.json").write_text(json.dumps(settings))
    model, processor = load(folder)
    batch = processor(images=picture(), text=QUESTION, return_tensors="pt")
    with torch.no_grad():
        assert model(**batch).logits.shape[1] == batch["input_ids"].shape[1]


@pytest.mark.parametrize(
    ("save", "newline"), [(save_hf, "image_newline"), (save_original, "model__image_newline")], ids=["hf", "original"]
)
def test_tensors_that_do_not_fit_are_listed(save, newline, tmp_path):
    folder = save(tmp_path)
    edit_tensors(folder, **{newline: None})
    with pytest.raises(CheckpointError, match=r"1 missing: model\.image_newline"):
        load(folder)
    edit_tensors(folder, **{newline: torch.zeros(32), "stray": torch.zeros(1)})
    with pytest.raises(
        CheckpointError, match=r"1 unexpected: stray; 1 wrongly shaped: model\.image_newline is \(32,\)"
    ):
        load(folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image_aspect_ratio", "anyres_max_9"),
        ("image_aspect_ratio", "pad"),
        ("mm_patch_merge_type", "spatial"),
        ("mm_vision_select_feature", "cls_patch"),
        ("image_grid_pinpoints", "(1x1),...,(6x6)"),
        ("model_type", "llava_qwen"),
    ],
)
def test_inexpressible_is_refused_by_name(name, value, tmp_path):
    folder = save_original(tmp_path)
    edit_json(folder / "config.json", **{name: value})
    with pytest.raises(CheckpointError) as error:
        load(folder)
    assert f"{name} = {value!r}" in str(error.value)


def test_options_that_do_not_fit(tmp_path):
    folder = save_original(tmp_path)
    with pytest.raises(UserError, match="image_aspect_ratio is 'pad'; choose anyres"):
        load(folder, image_aspect_ratio="pad")


def test_names_both_ways(tmp_path):
    for name in load_file(save_original(tmp_path) / "model.safetensors"):
        assert original.to_original_name(original.to_hf_name(name)) == name
    assert original.to_hf_name("model.image_newline") == "model.image_newline"
