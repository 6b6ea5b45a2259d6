"""Both layouts, whole and broken; equal tensors, and the original code's numbers (tests/golden/llava15_tiny)."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from duet.checkpoints.assemble import quantisation
from duet.checkpoints.files import CheckpointError
from duet.errors import UserError
from duet.llava.model import builder
from duet.llava.model.builder import load, load_pretrained_model
from tests.golden_llava import FEATURES, LOGITS, prompt, tensors
from tests.llava_checkpoints import HF, ORIGINAL, copy_of, edit_json, edit_tensors, save_original, split_off_tower

LAYOUTS = pytest.mark.parametrize("layout", [HF, ORIGINAL], ids=["hf", "original"])


def same_weights(one: LlavaForConditionalGeneration, two: LlavaForConditionalGeneration) -> bool:
    first, second = one.state_dict(), two.state_dict()
    return first.keys() == second.keys() and all(torch.equal(v, second[k]) for k, v in first.items())


def test_layouts_load_equal():
    assert same_weights(load(HF)[0], load(ORIGINAL)[0])


@LAYOUTS
def test_golden_numbers(layout: Path):
    model, _ = load(layout)
    golden = tensors("golden_base")
    for index in (0, 1):
        inputs = prompt(index)
        with torch.no_grad():
            logits = model(**inputs).logits[0]
            ids = model.generate(**inputs, max_new_tokens=8, do_sample=False)
        text = golden[f"full_logits_text_{index}"]
        torch.testing.assert_close(logits[-len(text) :], text, atol=LOGITS, rtol=0)
        torch.testing.assert_close(logits[-1], golden[f"full_logits_last_{index}"], atol=LOGITS, rtol=0)
        assert ids[0, inputs["input_ids"].shape[1] :].tolist() == golden[f"full_gen_{index}"].tolist()
    with torch.no_grad():
        features = model.model.get_image_features(prompt(0)["pixel_values"]).pooler_output[0]
    torch.testing.assert_close(features, golden["projected_0"], atol=FEATURES, rtol=0)


@LAYOUTS
def test_stock_and_in_eval_mode(layout: Path):
    model, processor = load(layout)
    assert type(model) is LlavaForConditionalGeneration
    assert type(processor) is LlavaProcessor
    assert not model.training
    assert model.config.image_token_id == processor.image_token_id == 511


@LAYOUTS
def test_dtype_and_attention(layout: Path):
    model, _ = load(layout, dtype="bfloat16", attn_implementation="eager", device="cpu")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.config._attn_implementation == "eager"
    with pytest.raises(ValueError, match="dtype is 'float12'"):
        load(layout, dtype="float12")


def test_round_trip_hf(tmp_path: Path):
    model, processor = load(ORIGINAL)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, _ = load(tmp_path)
    assert same_weights(model, again)


def test_round_trip_original(tmp_path: Path):
    model, _ = load(HF)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)
    folder = copy_of(ORIGINAL, tmp_path)
    save_original(model, folder)
    assert same_weights(model, load(folder)[0])


@LAYOUTS
def test_shards_and_pickle(layout: Path, tmp_path: Path):
    folder = copy_of(layout, tmp_path)
    whole = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(whole)
    parts = {f"pytorch_model-0000{i + 1}-of-00002.bin": names[i::2] for i in range(2)}
    for file, part in parts.items():
        torch.save({name: whole[name].clone() for name in part}, folder / file)
    weight_map = {name: file for file, part in parts.items() for name in part}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert same_weights(load(folder)[0], load(layout)[0])
    (folder / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(CheckpointError, match=r"missing shards: pytorch_model-00002-of-00002\.bin"):
        load(folder)


@pytest.mark.parametrize("where", ["relative", "absolute", "argument"])
def test_tower_in_a_folder_of_its_own(tmp_path: Path, where: str):
    folder, tower = copy_of(ORIGINAL, tmp_path), tmp_path / "clip_tiny"
    split_off_tower(folder, tower)
    if where != "relative":
        edit_json(folder / "config.json", mm_vision_tower=str(tower if where == "absolute" else tmp_path / "gone"))
    model, _ = load(folder, vision_tower=tower if where == "argument" else None)
    assert same_weights(model, load(ORIGINAL)[0])


def test_tower_as_clip_saves_it(tmp_path: Path):
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig

    model, _ = load(ORIGINAL)
    text = CLIPTextConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=50
    )
    clip = CLIPModel(CLIPConfig(vision_config=model.config.vision_config.to_dict(), text_config=text.to_dict()))
    clip.vision_model.load_state_dict(model.model.vision_tower.state_dict())
    folder, tower = copy_of(ORIGINAL, tmp_path), tmp_path / "clip_tiny"
    split_off_tower(folder, tower)
    clip.save_pretrained(tower)
    assert same_weights(model, load(folder)[0])


def test_tower_that_is_not_there(tmp_path: Path):
    folder = copy_of(ORIGINAL, tmp_path)
    edit_json(folder / "config.json", mm_vision_tower="/no/such/clip")
    with pytest.raises(CheckpointError, match=r"vision tower: no checkpoint at '/no/such/clip'.*vision_tower=FOLDER"):
        load(folder)


@pytest.mark.parametrize(
    ("layout", "name"),
    [(HF, "language_model__model__norm__weight"), (HF, "vision_tower__pre_layrnorm__bias")]
    + [(ORIGINAL, n) for n in ("model__norm__weight", "model__mm_projector__0__weight", "lm_head__weight")],
)
def test_missing_tensor_is_listed(layout: Path, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    folder = copy_of(layout, tmp_path)
    edit_tensors(folder, **{name: None})
    shown = name.replace("__", ".").replace("language_model.model", "language_model")
    with caplog.at_level(logging.WARNING), pytest.raises(CheckpointError, match=rf"1 missing: .*{shown}$"):
        load(folder)
    assert "newly initialized" not in caplog.text


@LAYOUTS
def test_unexpected_tensor_is_listed(layout: Path, tmp_path: Path):
    folder = copy_of(layout, tmp_path)
    edit_tensors(folder, model__image_newline=torch.ones(64))
    with pytest.raises(CheckpointError, match=r"1 unexpected: .*image_newline$"):
        load(folder)


@LAYOUTS
def test_wrong_shape_is_listed(layout: Path, tmp_path: Path):
    folder = copy_of(layout, tmp_path)
    name = "language_model__model__norm__weight" if layout is HF else "model__norm__weight"
    edit_tensors(folder, **{name: torch.ones(32)})
    with pytest.raises(CheckpointError, match=r"norm\.weight is \(32,\), config\.json asks for \(64,\)"):
        load(folder)


def test_many_missing_are_counted(tmp_path: Path):
    folder = copy_of(ORIGINAL, tmp_path)
    edit_json(folder / "config.json", num_hidden_layers=40)
    with pytest.raises(CheckpointError, match=r"72 missing: .*model\.layers\.32\..*, and 52 more"):
        load(folder)


def test_old_buffers_are_no_weights(tmp_path: Path):
    folder = copy_of(ORIGINAL, tmp_path)
    name = "model__vision_tower__vision_tower__vision_model__embeddings__position_ids"
    edit_tensors(folder, model__layers__0__self_attn__rotary_emb__inv_freq=torch.ones(8), **{name: torch.arange(577)})
    load(folder)


def test_pickle_with_code(tmp_path: Path):
    folder = copy_of(HF, tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save({"a": logging.getLogger("x")}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="holds more than tensors"):
        load(folder)


def test_other_family_is_named(tmp_path: Path):
    folder = copy_of(HF, tmp_path)
    edit_json(folder / "config.json", model_type="qwen2_5_vl")
    with pytest.raises(CheckpointError, match=r"type 'qwen2_5_vl'; supported are LLaVA-1\.5"):
        load(folder)


def test_original_arguments_on_the_other_layout():
    with pytest.raises(CheckpointError, match="for the original layout"):
        load(HF, vision_tower=ORIGINAL)


def test_vocabulary_without_room_for_the_placeholder(tmp_path: Path):
    folder = copy_of(ORIGINAL, tmp_path)
    small = {
        n: load_file(folder / "model.safetensors")[n][:511] for n in ("lm_head.weight", "model.embed_tokens.weight")
    }
    edit_tensors(folder, **{n.replace(".", "__"): v for n, v in small.items()})
    edit_json(folder / "config.json", vocab_size=511)
    model, processor = load(folder)
    assert model.config.text_config.vocab_size == model.lm_head.out_features == 512
    with torch.no_grad():
        logits, full = (m(**prompt(0)).logits for m in (model, load(ORIGINAL)[0]))
    torch.testing.assert_close(logits[..., :511], full[..., :511])
    assert processor.image_token_id == 511


@LAYOUTS
def test_load_pretrained_model_as_the_original_readme_calls_it(layout: Path):
    tokenizer, model, image_processor, context_len = load_pretrained_model(
        model_path=str(layout), model_base=None, model_name="llava-v1.5-7b"
    )
    assert isinstance(model, LlavaForConditionalGeneration)
    assert tokenizer("a").input_ids
    pixels = image_processor.preprocess(torch.zeros(3, 40, 30, dtype=torch.uint8), return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, 336, 336)
    assert context_len == 2048


def test_context_length_of_the_checkpoint(tmp_path: Path):
    folder = copy_of(ORIGINAL, tmp_path)
    edit_json(folder / "config.json", max_sequence_length=4096)
    assert load_pretrained_model(str(folder), device="cpu", torch_dtype=torch.bfloat16)[3] == 4096


@pytest.mark.parametrize(
    ("accelerated", "arguments", "wanted"),
    [
        (False, {}, {"dtype": torch.float32}),
        (True, {}, {"dtype": torch.float16, "device_map": "auto"}),
        (True, {"device_map": {"": 1}}, {"dtype": torch.float16, "device_map": {"": 1}}),
        (True, {"device": "cuda:1"}, {"dtype": torch.float16, "device": "cuda:1"}),
        (True, {"device": "cpu", "torch_dtype": torch.float32}, {"dtype": torch.float32, "device": "cpu"}),
        (
            True,
            {"use_flash_attn": True},
            {"dtype": torch.float16, "device_map": "auto", "attn_implementation": "flash_attention_2"},
        ),
    ],
)
def test_where_the_original_entry_point_loads(
    accelerated: bool, arguments: dict, wanted: dict, monkeypatch: pytest.MonkeyPatch
):
    passed: list[dict] = []
    loaded = load(HF)
    monkeypatch.setattr("torch.accelerator.is_available", lambda: accelerated)
    monkeypatch.setattr(builder, "load", lambda path, **options: (passed.append(options), loaded)[1])
    load_pretrained_model("somewhere", **arguments)
    assert passed == [{"model_base": None, **wanted}]


@pytest.mark.parametrize("bits", [4, 8])
def test_quantised_loading_needs_bitsandbytes(bits: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("duet.extras.find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"{bits}-bit loading needs bitsandbytes: pip install"):
        load_pretrained_model(str(HF), **{f"load_{bits}bit": True})


@LAYOUTS
def test_quantised_decoder_only(layout: Path):
    bnb = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    model, _ = load(layout, quantization_config=quantisation(4, torch.float32))
    quantised = {name for name, module in model.named_modules() if isinstance(module, bnb.nn.Linear4bit)}
    assert len(quantised) == 32 * 7
    assert all(name.startswith("model.language_model.layers.") for name in quantised)


def test_hub_id_is_fetched_once(monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []

    def resolve_folder(name: object, revision: str | None = None, weights: bool = True) -> Path:
        asked.append(f"{name}@{revision}")
        return HF

    monkeypatch.setattr(builder, "resolve_folder", resolve_folder)
    load("llava-hf/llava-1.5-7b-hf", revision="main")
    assert asked == ["llava-hf/llava-1.5-7b-hf@main"]


def test_single_pickle_file(tmp_path: Path):
    folder = copy_of(HF, tmp_path)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    save_file({"wrong": torch.ones(1)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="unexpected"):
        load(folder)  # safetensors first
    (folder / "model.safetensors").unlink()
    assert same_weights(load(folder)[0], load(HF)[0])
