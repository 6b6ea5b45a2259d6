"""The processor: pixels against a plain PIL restatement of the original's rule, and the prompt's token ids."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import LlavaProcessor

from duet.checkpoints.files import CheckpointError
from duet.llava.model.builder import load
from tests.llava_checkpoints import GOLDEN, HF, ORIGINAL, copy_of, edit_json

SETTINGS = json.loads((GOLDEN / "clip_tiny" / "preprocessor_config.json").read_text())
MEAN, STD = np.array(SETTINGS["image_mean"]), np.array(SETTINGS["image_std"])
PADDING = tuple(int(channel * 255) for channel in MEAN)


@pytest.fixture(scope="module")
def padding() -> LlavaProcessor:
    return load(ORIGINAL)[1]


@pytest.fixture(scope="module")
def cropping() -> LlavaProcessor:
    return load(HF)[1]


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise).convert(mode)


def normalised(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(((np.asarray(image) / 255 - MEAN) / STD).transpose(2, 0, 1)).float()


def plainly_padded(image: Image.Image) -> torch.Tensor:
    side = max(image.size)
    square = Image.new("RGB", (side, side), PADDING)
    square.paste(image.convert("RGB"), ((side - image.width) // 2, (side - image.height) // 2))
    return normalised(square.resize((336, 336), Image.Resampling.BICUBIC))


def pixels(processor: LlavaProcessor, image: Image.Image | str) -> torch.Tensor:
    return processor(images=image, text="<image>", return_tensors="pt")["pixel_values"][0]


@pytest.mark.parametrize("size", [(500, 333), (333, 500), (336, 336), (41, 17), (100, 101), (1, 9)])
def test_pad_is_the_original_rule(padding: LlavaProcessor, size: tuple[int, int]):
    torch.testing.assert_close(pixels(padding, picture(*size)), plainly_padded(picture(*size)), atol=1e-6, rtol=0)


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "RGB"])
def test_any_mode_becomes_rgb(padding: LlavaProcessor, mode: str):
    image = picture(60, 40, mode)
    torch.testing.assert_close(pixels(padding, image), plainly_padded(image), atol=1e-6, rtol=0)


def test_wrong_extension(padding: LlavaProcessor, tmp_path: Path):
    picture(60, 40).save(tmp_path / "picture.jpg", format="PNG")
    found = pixels(padding, str(tmp_path / "picture.jpg"))
    torch.testing.assert_close(found, plainly_padded(picture(60, 40)), atol=1e-6, rtol=0)


def test_transparency_in_a_file_is_dropped_as_in_the_original(padding: LlavaProcessor, tmp_path: Path):
    image = picture(60, 40)
    image.putalpha(0)
    image.save(tmp_path / "picture.png")
    found = pixels(padding, str(tmp_path / "picture.png"))
    torch.testing.assert_close(found, plainly_padded(picture(60, 40)), atol=1e-6, rtol=0)


def test_hf_checkpoint_keeps_cropping(cropping: LlavaProcessor):
    wide = picture(672, 336)
    torch.testing.assert_close(pixels(cropping, wide), normalised(wide.crop((168, 0, 504, 336))), atol=1e-6, rtol=0)


def test_aspect_ratio_on_request(padding: LlavaProcessor, cropping: LlavaProcessor, tmp_path: Path):
    wide = picture(300, 200)
    padded, cropped = load(HF, image_aspect_ratio="pad")[1], load(ORIGINAL, image_aspect_ratio="crop")[1]
    assert torch.equal(pixels(padded, wide), pixels(padding, wide))
    assert torch.equal(pixels(cropped, wide), pixels(cropping, wide))
    with pytest.raises(ValueError, match="image_aspect_ratio is 'stretch'; choose pad or crop"):
        load(HF, image_aspect_ratio="stretch")


def test_padding_is_saved(padding: LlavaProcessor, tmp_path: Path):
    model, _ = load(ORIGINAL)
    model.save_pretrained(tmp_path)
    padding.save_pretrained(tmp_path)
    again = load(tmp_path)[1]
    assert torch.equal(pixels(again, picture(300, 200)), pixels(padding, picture(300, 200)))


@pytest.mark.parametrize("images", [0, 1, 3])
def test_placeholders_are_what_the_model_takes(padding: LlavaProcessor, cropping: LlavaProcessor, images: int):
    for processor in (padding, cropping):
        pictures = [picture(30, 20)] * images or None
        batch = processor(images=pictures, text="USER: " + "<image>\n" * images + "a", return_tensors="pt")
        assert (batch["input_ids"] == 511).sum() == 576 * images


def test_full_strategy_counts_the_cls_token(tmp_path: Path):
    folder = copy_of(ORIGINAL, tmp_path)
    edit_json(folder / "config.json", mm_vision_select_feature="cls_patch")
    model, processor = load(folder)
    batch = processor(images=picture(30, 20), text="<image>", return_tensors="pt")
    assert (batch["input_ids"] == 511).sum() == 577
    with torch.no_grad():
        assert model(**batch).logits.shape[1] == batch["input_ids"].shape[1]


def test_stale_processor_config_is_put_right(tmp_path: Path):
    folder = copy_of(HF, tmp_path)
    edit_json(folder / "processor_config.json", patch_size=None, num_additional_image_tokens=None)
    edit_json(folder / "processor_config.json", vision_feature_select_strategy=None)
    _, processor = load(folder)
    batch = processor(images=picture(30, 20), text="<image>", return_tensors="pt")
    assert (batch["input_ids"] == 511).sum() == 576


@pytest.mark.parametrize("text", ["USER: <image>\nWhat is it? ASSISTANT:", "<image><image>\na", "no picture"])
def test_text_around_a_picture_is_tokenized_apart(padding: LlavaProcessor, text: str):
    tokenizer = padding.tokenizer
    expected: list[int] = []
    for number, part in enumerate(text.split("<image>")):
        ids = tokenizer(part, add_special_tokens=False).input_ids if part else []
        expected += [511] * (number > 0) + ids
    assert tokenizer(text, add_special_tokens=False).input_ids == expected


def test_sentencepiece_tokenizer_of_the_original(tmp_path: Path):
    """Ids equal the original's rule: one BOS, then each part of the text as sentencepiece cuts it."""
    spm = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    folder = copy_of(ORIGINAL, tmp_path)
    (folder / "tokenizer.json").unlink()
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("USER: What is in the picture? ASSISTANT: a red circle\n" * 50 + "the cat, the dog, 12 34\n" * 50)
    spm.SentencePieceTrainer.train(
        input=str(corpus), model_prefix=str(folder / "tokenizer"), vocab_size=330, model_type="bpe", byte_fallback=True,
        add_dummy_prefix=True, remove_extra_whitespaces=False, normalization_rule_name="identity", minloglevel=2,
    )  # fmt: skip
    settings = {"tokenizer_class": "LlamaTokenizer", "legacy": False, "add_bos_token": True, "add_eos_token": False}
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "bos_token": "<s>", "eos_token": "</s>"}))
    _, processor = load(folder)
    pieces = spm.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    before, behind = "USER: ", "\nWhat is in the picture? ASSISTANT:"
    ids = processor(images=picture(9, 9), text=f"{before}<image>{behind}")["input_ids"][0]
    expected = [1, *pieces.encode(before), *[processor.image_token_id] * 576, *pieces.encode(behind)]
    assert ids == expected
    assert processor.image_token_id == 330


def test_missing_files_are_named(tmp_path: Path):
    folder = copy_of(ORIGINAL, tmp_path)
    (tmp_path / "clip_tiny" / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no preprocessor_config\.json of the vision tower in"):
        load(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"has neither tokenizer\.json nor tokenizer\.model"):
        load(folder)


def test_hf_folder_without_processor(tmp_path: Path):
    folder = copy_of(HF, tmp_path)
    (folder / "processor_config.json").unlink()
    with pytest.raises(CheckpointError, match="has no complete LlavaProcessor"):
        load(folder)


def test_picture_size_of_another_tower(tmp_path: Path):
    folder = copy_of(ORIGINAL, tmp_path)
    edit_json(tmp_path / "clip_tiny" / "preprocessor_config.json", crop_size={"height": 224, "width": 224})
    with pytest.raises(CheckpointError, match="makes 224x224 pictures, the vision tower takes 336x336"):
        load(folder)


def test_placeholder_of_another_model(tmp_path: Path):
    folder = copy_of(HF, tmp_path)
    edit_json(folder / "config.json", image_token_index=7)
    with pytest.raises(CheckpointError, match=r"is token 511, config\.json says image_token_index 7"):
        load(folder)
