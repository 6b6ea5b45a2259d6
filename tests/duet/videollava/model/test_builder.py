"""Both layouts, whole and broken; the original's entry points as its README prints them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import VideoLlavaForConditionalGeneration

import duet
from duet.checkpoints.files import CheckpointError
from duet.videollava.model import builder, original
from duet.videollava.model.builder import load, load_pretrained_model
from duet.visionzip import visionzip_video
from tests.golden_video import HF, LOGITS, ORIGINAL, prompt, tensors


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """The original layout with the config.json of its towers where it says."""
    folder = Path(shutil.copytree(ORIGINAL, tmp_path / "Video-LLaVA-7B"))
    vision = json.loads((HF / "config.json").read_text())["vision_config"]
    for tower in ("LanguageBind_Image", "LanguageBind_Video_merge"):
        (folder / "x" / tower).mkdir(parents=True)
        settings = {"model_type": tower, "vision_config": {**vision, "add_time_attn": False, "num_frames": 8}}
        (folder / "x" / tower / "config.json").write_text(json.dumps(settings))
    return folder


def edit(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def same_weights(one: Any, two: Any) -> bool:
    first, second = one.state_dict(), two.state_dict()
    return first.keys() == second.keys() and all(torch.equal(v, second[k]) for k, v in first.items())


def test_layouts_load_equal(checkpoint):
    (hf, _), (first, _) = load(HF), load(checkpoint)
    assert type(hf) is type(first) is VideoLlavaForConditionalGeneration
    assert same_weights(hf, first) and not hf.training
    ours, wanted = first.config.to_dict(), hf.config.to_dict()
    for entry in ("architectures", "transformers_version", "_name_or_path"):
        ours.pop(entry, None), wanted.pop(entry, None)
    assert ours == wanted


@pytest.mark.parametrize("layout", ["hf", "original"])
def test_the_readme_snippet(layout, checkpoint):
    tokenizer, model, processor, context_len = load_pretrained_model(
        model_path=str(checkpoint if layout == "original" else HF), model_base=None, model_name="Video-LLaVA-7B"
    )
    with torch.no_grad():
        logits = model(**prompt()).logits[0]
    text = tensors()["baseline.0.logits_text"]
    torch.testing.assert_close(logits[-len(text) :], text, atol=LOGITS, rtol=0)
    model = visionzip_video(model, dominant=170, contextual=35, cluster_width=4)
    with duet.record(model) as trace:
        model.generate(**prompt(), max_new_tokens=2, do_sample=False)
    assert trace.entered == [8 * 205]
    assert [len(stage.kept[0]) for stage in trace.stages] == [4 * 205, 0]
    assert tokenizer is processor.tokenizer and context_len == 2048


@pytest.mark.parametrize("layout", ["hf", "original"])
def test_duet_load_knows_the_family(layout, checkpoint):
    path = str(checkpoint if layout == "original" else HF)
    model, processor = duet.load(path, method="duet", budget="videollava_136")
    with duet.record(model) as trace, torch.no_grad():
        model(**prompt())
    assert trace.entered == [216]
    assert processor.video_token_id == model.config.video_token_id == 511


def test_older_names_of_tensors(tmp_path):
    """As in the checkpoints on the hub: `language_model.model.`, and towers with `vision_model.` inside."""
    folder = Path(shutil.copytree(HF, tmp_path / "hf"))
    found = load_file(folder / "model.safetensors")
    renamed = {}
    for name, tensor in found.items():
        for tower in original.TOWERS:
            if name.startswith(f"{tower}.") and ".vision_model." not in name:
                name = name.replace(f"{tower}.", f"{tower}.vision_model.")
        renamed[name] = tensor.clone()
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    assert same_weights(load(folder)[0], load(HF)[0])


def test_saved_files_are_stock(tmp_path, checkpoint):
    model, processor = load(checkpoint)
    visionzip_video(model, 20, 7).save_pretrained(tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    again, info = VideoLlavaForConditionalGeneration.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not any(info.values()) and same_weights(model, again)
    ours, reloaded = load(tmp_path / "saved")
    assert same_weights(model, ours)
    text = "USER: <image> ASSISTANT:"
    pixels = torch.zeros(3, 224, 224, dtype=torch.uint8).numpy()
    assert torch.equal(
        processor(text=text, images=pixels)["input_ids"], reloaded(text=text, images=pixels)["input_ids"]
    )


def test_towers_in_folders_of_their_own(checkpoint):
    found = load_file(checkpoint / "model.safetensors")
    kept = {key: value.clone() for key, value in found.items() if "_tower." not in key}
    save_file(kept, checkpoint / "model.safetensors", metadata={"format": "pt"})
    for name, place in (("image_tower", "LanguageBind_Image"), ("video_tower", "LanguageBind_Video_merge")):
        prefix = original.TOWER_PREFIXES[name]
        inside = {key.removeprefix(prefix): value for key, value in found.items() if key.startswith(prefix)}
        inside = {f"vision_model.{key}": value.clone() for key, value in inside.items()}
        inside["text_model.final_layer_norm.bias"] = torch.zeros(3)
        save_file(inside, checkpoint / "x" / place / "model.safetensors", metadata={"format": "pt"})
    assert same_weights(load(checkpoint)[0], load(HF)[0])


def test_where_the_towers_are_can_be_said(monkeypatch):
    def unreachable(name: str, **options: Any) -> str:
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(CheckpointError, match=r"image tower: .*LanguageBind_Image.*`image_tower=FOLDER`"):
        load(ORIGINAL)
    assert same_weights(load(ORIGINAL, image_tower=HF)[0], load(HF)[0])


def test_every_tensor_that_does_not_fit_is_listed(checkpoint):
    found = {key: value.clone() for key, value in load_file(checkpoint / "model.safetensors").items()}
    gone = "model.video_tower.video_tower.encoder.layers.3.mlp.fc1.bias"
    del found[gone]
    found["model.video_tower.video_tower.encoder.layers.0.temporal_embedding"] = torch.zeros(1, 8, 32)
    found["model.mm_projector.0.bias"] = torch.zeros(5)
    save_file(found, checkpoint / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError) as error:
        load(checkpoint)
    message = str(error.value)
    assert f"1 missing: {gone}" in message
    assert "1 unexpected: model.video_tower.video_tower.encoder.layers.0.temporal_embedding" in message
    assert "1 wrongly shaped: model.mm_projector.0.bias is (5,)" in message


@pytest.mark.parametrize(
    ("entry", "value"),
    [("mm_projector_type", "linear"), ("mm_use_im_start_end", True), ("model_type", "llava_mpt")],
)
def test_inexpressible_is_refused_by_name(checkpoint, entry, value):
    edit(checkpoint, **{entry: value})
    with pytest.raises(CheckpointError, match=f"{entry} = {value!r}"):
        load(checkpoint)


def test_towers_that_the_stock_class_cannot_be(checkpoint):
    video = checkpoint / "x" / "LanguageBind_Video_merge"
    vision = json.loads((video / "config.json").read_text())["vision_config"]
    edit(video, vision_config={**vision, "add_time_attn": True})
    with pytest.raises(CheckpointError, match="video_tower has attention over time"):
        load(checkpoint)
    edit(video, vision_config={**vision, "num_attention_heads": 8})
    with pytest.raises(CheckpointError, match="towers differ: num_attention_heads is 4 and 8"):
        load(checkpoint)


def test_other_families_are_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava", "vision_config": {}}))
    with pytest.raises(CheckpointError, match="model of type 'llava'; supported are Video-LLaVA"):
        load(tmp_path)
    with pytest.raises(CheckpointError, match="for the original layout"):
        load(HF, image_tower=HF)


def test_names_both_ways():
    for name in load_file(ORIGINAL / "model.safetensors"):
        assert original.to_original_name(original.to_hf_name(name)) == name
    assert (
        original.to_hf_name("model.layers.3.mlp.up_proj.weight") == "model.language_model.layers.3.mlp.up_proj.weight"
    )


def test_options_of_the_original_reach_the_loader(monkeypatch):
    seen: dict[str, Any] = {}

    def fake(path: str, **options: Any) -> Any:
        seen.update(options)
        raise RuntimeError("far enough")

    monkeypatch.setattr(builder, "load", fake)
    with pytest.raises(RuntimeError):
        load_pretrained_model("x", device="cpu", torch_dtype=torch.bfloat16, use_flash_attn=True, image_tower="y")
    assert seen == {
        "model_base": None,
        "dtype": torch.bfloat16,
        "device": "cpu",
        "attn_implementation": "flash_attention_2",
        "image_tower": "y",
    }
