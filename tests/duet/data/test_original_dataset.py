"""Training examples with `tokenization: original`: the golden ids with pictures written out, and their pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, LlavaConfig

from duet.data.collate import IGNORED, collate
from duet.data.dataset import ConversationDataset
from duet.data.load import original_parser, original_row
from duet.data.rows import DataError, parse_row
from duet.families import find_asking
from duet.llava.asking import LlavaAsking
from duet.loading import load_stock
from playground.mini.build_model import build_processor
from tests.golden_qwen import FOLDER as QWEN
from tests.golden_training import FOLDER, LENGTH, cases, records
from tests.golden_video import HF as VIDEO_LLAVA
from tests.small_video import write_video

PATCHES = 100


@pytest.fixture(scope="module")
def asking() -> LlavaAsking:
    tokenizer = AutoTokenizer.from_pretrained(FOLDER / "tokenizers" / "spm")
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    return LlavaAsking(LlavaConfig(), build_processor(tokenizer))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for name in ("square", "wide", "tall", "rgba"):
        Image.new("RGB", (60, 40)).save(tmp_path / f"{name}.png")
    return tmp_path


def collapsed(values: list[int], ids: list[int], image: int) -> list[int]:
    """Ids or labels, every run of visual tokens as its first one."""
    starts = [place for place, token in enumerate(ids) if token != image or ids[place - 1 : place] != [image]]
    return [values[place] for place in starts]


@pytest.mark.parametrize("mode", ["v1", "plain"])
def test_ids_and_labels_are_the_golden_ones(asking: LlavaAsking, pictures: Path, mode: str) -> None:
    image = asking.processor.image_token_id
    parse = original_parser("llava", mode)
    compared = 0
    for case in cases("spm"):
        record = records()[case["row"]]
        if case["mode"] != mode:
            continue
        if "error" in case:
            with pytest.raises(DataError):
                parse(record, "file, row 0")
            continue
        asked = case["input_ids"].count(-200)
        if len(case["input_ids"]) > LENGTH - 2 or asked > ("image" in record):
            continue
        limit = 10_000 if "image" in record else LENGTH
        dataset = ConversationDataset(
            [parse(record, "file, row 0")], asking, pictures, mode, max_length=limit, tokenization="original"
        )
        example: dict[str, Any] = dataset[0]
        ids, labels = example["input_ids"].tolist(), example["labels"].tolist()
        assert ids.count(image) == PATCHES * asked
        shown = collapsed(ids, ids, image)
        assert [-200 if token == image else token for token in shown] == case["input_ids"], case["row"]
        if not case.get("printed"):
            assert collapsed(labels, ids, image) == case["labels"], case["row"]
        assert ("pixel_values" in example) == bool(asked)
        compared += 1
    assert compared > 12


def test_more_placeholders_than_pictures_is_an_error(asking: LlavaAsking, pictures: Path) -> None:
    """The original would take the next row's picture."""
    row = original_row(records()["placeholder_in_both_turns"], "file, row 0")
    dataset = ConversationDataset([row], asking, pictures, "v1", tokenization="original")
    with pytest.raises(DataError, match="2 pictures and frames are asked for, 1 are there"):
        dataset[0]


@pytest.mark.parametrize("name", ["video_llava", "qwen2_5_vl"])
def test_videos_of_other_families(name: str, tmp_path: Path) -> None:
    model, processor = load_stock(str({"video_llava": VIDEO_LLAVA, "qwen2_5_vl": QWEN / "weights_hf"}[name]))
    asking = find_asking(model, processor)
    said = [{"from": "human", "value": "<video>\nwhat?"}, {"from": "gpt", "value": "it is red"}]
    record = {"video": write_video(tmp_path / "a.mp4").name, "conversations": said}
    theirs, ours = (
        ConversationDataset([row], asking, tmp_path, max_length=10_000, tokenization=tokenization)[0]
        for row, tokenization in (
            (original_parser(name, None)(record, "file, row 0"), "original"),
            (parse_row(record, "file, row 0"), "right"),
        )
    )
    video = processor.video_token_id
    assert (theirs["input_ids"] == video).sum() == (ours["input_ids"] == video).sum() > 0
    assert torch.equal(theirs["pixel_values_videos"], ours["pixel_values_videos"])
    assert (theirs["labels"] != IGNORED).any()
    batch = collate([theirs], processor.tokenizer.pad_token_id, "right")
    assert torch.isfinite(model(**batch).loss)


@pytest.mark.parametrize(("family", "expected"), [("qwen2_5_vl", ("a.png", "b.png")), ("llava", ())])
def test_qwen_s_code_reads_the_plural_too(family: str, expected: tuple[str, ...]) -> None:
    said = [{"from": "human", "value": "<image><image>\nWhich?"}, {"from": "gpt", "value": "the first"}]
    record = {"images": ["a.png", "b.png"], "conversations": said}
    assert original_parser(family, "v1")(record, "file, row 0").images == expected
