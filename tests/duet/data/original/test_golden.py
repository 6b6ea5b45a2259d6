"""Ids and labels of the original training code, row by row."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from duet.data.collate import collate
from duet.data.original.encode import LeftOut, OriginalEncoder
from duet.data.original.qwen import QwenEncoder
from duet.data.original.tokenizer import OriginalTokenizer, of_tokenizer, read_original_tokenizer
from duet.errors import UserError
from tests.golden_training import FOLDER, LENGTH, TOY, cases, content, records


def tokenizer_of(name: str) -> OriginalTokenizer:
    if name.startswith("toy"):
        return read_original_tokenizer(TOY, LENGTH, legacy=None if name.endswith("legacy_flag") else False)
    return read_original_tokenizer(FOLDER / "tokenizers" / name, LENGTH)


def compare(case: dict, encoder: OriginalEncoder, record: dict) -> None:
    if "input_ids" not in case:
        with pytest.raises(LeftOut):
            encoder.check(record)
            encoder.encode(record)
        return
    encoder.check(record)
    found = encoder.encode(record)
    assert found.input_ids == case["input_ids"]
    assert found.labels == case["labels"]
    told = [line for line in case.get("printed", ()) if "mismatch" in line]
    assert bool(found.warning) == bool(told)
    for line in told:
        assert line.partition("mismatch: ")[2].removesuffix(". (ignored)") in str(found.warning)


@pytest.mark.parametrize("name", ["spm", "spm_legacy", "toy", "toy_legacy_flag"])
def test_pictures_and_text(name: str) -> None:
    tokenizer = tokenizer_of(name)
    for case in cases(name):
        compare(case, OriginalEncoder(tokenizer, case["mode"]), records()[case["row"]])


@pytest.mark.parametrize("code", ["video_llava", "duet_video"])
def test_videos(code: str) -> None:
    for case in cases(code):
        encoder = OriginalEncoder(tokenizer_of(case["tokenizer"]), case["mode"], code)
        compare(case, encoder, records("rows_video")[case["row"]])


def test_qwen() -> None:
    encoder = QwenEncoder(AutoTokenizer.from_pretrained(FOLDER / "tokenizers" / "qwen"))
    for case in cases("qwen"):
        record = records("rows_qwen")[case["row"]]
        found = encoder.encode(record, record["grids"])
        assert (found.input_ids, found.labels) == (case["input_ids"], case["labels"])


def test_qwen_needs_a_grid_for_every_placeholder() -> None:
    encoder = QwenEncoder(AutoTokenizer.from_pretrained(FOLDER / "tokenizers" / "qwen"))
    with pytest.raises(LeftOut, match="IndexError: more <image> than files"):
        encoder.encode(records("rows_qwen")["two_pictures"], [4])


def test_a_sentencepiece_model_alone_is_the_slow_tokenizer(tmp_path: Path) -> None:
    for file, folder in (("tokenizer.model", ""), ("tokenizer_config.json", "spm")):
        (tmp_path / file).write_bytes((FOLDER / "tokenizers" / folder / file).read_bytes())
    tokenizer = read_original_tokenizer(tmp_path)
    assert tokenizer.max_length == LENGTH
    for case in cases("spm"):
        compare(case, OriginalEncoder(tokenizer, case["mode"]), records()[case["row"]])


def test_placeholder_tokens_of_a_converted_checkpoint_are_ordinary_text() -> None:
    loaded = AutoTokenizer.from_pretrained(FOLDER / "tokenizers" / "spm")
    loaded.add_tokens(["<image>", "<pad>"], special_tokens=True)
    record = records()["placeholder_without_picture"]
    expected = next(case for case in cases("spm") if case["row"] == record["id"] and case["mode"] == "v1")
    found = OriginalEncoder(of_tokenizer(loaded, LENGTH), "v1").encode(record)
    assert (found.input_ids, found.labels) == (expected["input_ids"], expected["labels"])


def test_an_unknown_character_loses_the_row() -> None:
    """`pad` is `<unk>`, so it is not counted."""
    tokenizer = tokenizer_of("spm")
    said = [{"from": "human", "value": "What is <unk>?"}, {"from": "gpt", "value": "A token."}]
    found = OriginalEncoder(tokenizer, "v1").encode({"conversations": said})
    assert set(found.labels) == {-100}
    assert "mismatch" in str(found.warning)


@pytest.mark.parametrize("version", ["v0", "llava_v0", "v1_mmtag", "v0_mmtag", "llama_2", "mpt", "chatml_direct"])
def test_every_format_writes_its_text(version: str) -> None:
    found = OriginalEncoder(tokenizer_of("spm_legacy"), version).encode(records()["image_first"])
    assert found.input_ids.count(-200) == 1
    assert len(found.labels) == len(found.input_ids)


def test_an_unknown_format() -> None:
    with pytest.raises(UserError, match="no prompt format 'v11'"):
        OriginalEncoder(None, "v11")


def said(*roles: str) -> list[dict[str, str]]:
    return [{"from": role, "value": f"text {number}"} for number, role in enumerate(roles)]


def test_qwen_takes_any_role_and_no_message_at_all() -> None:
    """Only a first message of `gpt` is dropped; of every role but user and system all but three ids are learned."""
    encoder = QwenEncoder(AutoTokenizer.from_pretrained(FOLDER / "tokenizers" / "qwen"))
    system = encoder.encode({"conversations": []})
    assert set(system.labels) == {-100}
    assert encoder.encode({"conversations": said("gpt")}).input_ids == system.input_ids
    tool = encoder.encode({"conversations": said("human", "tool")})
    size = len(encoder.encode({"conversations": said("human")}).input_ids)
    assert tool.labels[size : size + 3] == [-100] * 3
    assert tool.labels[size + 3 :] == tool.input_ids[size + 3 :]


@pytest.mark.parametrize("media", [{"image": []}, {"image": None}, {"video": None, "image": "a.png"}])
def test_rows_without_a_usable_file_are_text_in_duet_and_another_row_in_video_llava(media: dict) -> None:
    record = {
        **media,
        "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "Ring."}],
    }
    text = OriginalEncoder(tokenizer_of("spm"), "v1", "duet_video").encode(record)
    assert -200 not in text.input_ids and not text.pictures
    if None in media.values():
        with pytest.raises(LeftOut, match="at random"):
            OriginalEncoder(tokenizer_of("spm"), "v1", "video_llava").encode(record)


def test_batches_are_the_collator_s() -> None:
    """Padded on the right and cut; the original also masks out padding that is a real `<unk>`."""
    encoder = OriginalEncoder(tokenizer_of("spm"), "v1")
    for batch in content("collator"):
        rows = [encoder.encode(records()[name]) for name in batch["rows"]]
        found = collate(
            [{"input_ids": torch.tensor(r.input_ids), "labels": torch.tensor(r.labels)} for r in rows], 0, "right"
        )
        for name in ("input_ids", "labels", "attention_mask"):
            assert found[name][:, :LENGTH].tolist() == [[int(each) for each in row] for row in batch[name]], name
