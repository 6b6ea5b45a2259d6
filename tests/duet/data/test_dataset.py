"""Encoding, labels, pictures and collation, on the small world's own tokenizer and processor."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import LlavaConfig

from duet.data.collate import collate
from duet.data.dataset import ConversationDataset
from duet.data.encode import IGNORED, encode, process, spread
from duet.data.pictures import open_picture, pad_to_square
from duet.data.rows import IMAGE, DataError, Row
from duet.llava.asking import LlavaAsking
from duet.llava.prompts import vicuna_v1_segments
from playground.mini.build_model import build_processor
from playground.mini.tokenizer import train_tokenizer

TURNS = (("<image>\nWhat color is the ring?", "red"), ("Is it large? Say red ASSISTANT: red", "Yes"))


@pytest.fixture(scope="module")
def processor():
    return build_processor(train_tokenizer(["What color is the ring? red Is it large? Yes No"] * 30))


@pytest.fixture(scope="module")
def asking(processor):
    return LlavaAsking(LlavaConfig(), processor)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (80, 80), (200, 30, 30)).save(tmp_path / "a.png")
    Image.new("RGB", (60, 30), (30, 200, 30)).save(tmp_path / "b.png")
    return tmp_path


def test_only_answers_and_their_ends_are_learned(processor) -> None:
    encoded = encode(vicuna_v1_segments(TURNS), processor.tokenizer)
    learned = [label for label in encoded.labels if label != IGNORED]
    assert processor.tokenizer.decode(learned) == "red</s> Yes</s>"


def test_a_separator_inside_a_question_changes_nothing(processor) -> None:
    encoded = encode(vicuna_v1_segments(TURNS), processor.tokenizer)
    text = processor.tokenizer.decode(encoded.input_ids)
    assert text.count("ASSISTANT: red") == 2
    assert sum(label == processor.tokenizer.convert_tokens_to_ids("▁red") for label in encoded.labels) == 1


def test_ids_equal_the_processor_s(processor, asking, folder: Path) -> None:
    """Training must see what inference sees: the same ids as processor(text, image), the same pixels."""
    dataset = ConversationDataset([Row("0", ("a.png",), TURNS)], asking, folder)
    text = "".join(segment.text for segment in vicuna_v1_segments(TURNS))
    expected = processor(images=open_picture(folder / "a.png"), text=text, return_tensors="pt")
    assert torch.equal(dataset[0]["input_ids"], expected["input_ids"][0])
    assert torch.equal(dataset[0]["pixel_values"], expected["pixel_values"])


def test_placeholders_and_pictures_must_agree(asking) -> None:
    picture = process(asking, IMAGE, Image.new("RGB", (20, 20)))
    with pytest.raises(DataError, match=r"1 placeholder\(s\) \(<image>\) for 2 picture"):
        spread(vicuna_v1_segments(TURNS), [picture, picture], asking.marks)


def test_collated_rows_with_two_one_and_no_pictures(processor, asking, folder: Path) -> None:
    rows = [
        Row("0", ("a.png", "b.png"), (("<image><image>\nSame?", "No"),)),
        Row("1", (), (("Is it large?", "Yes"),)),
        Row("2", ("b.png",), TURNS),
    ]
    dataset = ConversationDataset(rows, asking, folder, pad_square=True)
    batch = collate([dataset[index] for index in range(3)], processor.tokenizer.pad_token_id, "right")
    assert batch["pixel_values"].shape == (3, 3, 80, 80)
    image_id = processor.tokenizer.convert_tokens_to_ids("<image>")
    assert (batch["input_ids"] == image_id).sum(1).tolist() == [200, 0, 100]
    lengths = batch["attention_mask"].sum(1)
    for row, length in enumerate(lengths):
        assert (batch["labels"][row, length:] == IGNORED).all()
        assert (batch["input_ids"][row, length:] == processor.tokenizer.pad_token_id).all()


def test_text_only_batch_has_no_pixels(asking) -> None:
    dataset = ConversationDataset([Row("0", (), (("Is it large?", "Yes"),))], asking)
    assert set(collate([dataset[0]], 0, "right")) == {"input_ids", "labels", "attention_mask"}


def test_a_row_cut_before_its_answer_is_an_error(asking) -> None:
    dataset = ConversationDataset([Row("9", (), (("Is it large?", "Yes"),))], asking, max_length=2)
    with pytest.raises(DataError, match="row 0 \\(id '9'\\): nothing to learn within 2 tokens"):
        dataset[0]


def test_a_row_cut_inside_of_its_pictures_is_an_error(processor, asking, folder: Path) -> None:
    """Its answer to the first picture could be learned, but the model would be handed two pictures."""
    row = Row("9", ("a.png", "b.png"), (TURNS[0], ("<image>\nIs it large?", "No")))
    whole = ConversationDataset([row], asking, folder)[0]["input_ids"]
    end = int((whole == processor.image_token_id).nonzero()[-1])
    cut = ConversationDataset([row], asking, folder, max_length=end)
    with pytest.raises(DataError, match=rf"row 0 \(id '9'\): 1 of its 200 visual tokens .* first {end} tokens"):
        cut[0]


def test_padding_centres_the_picture_on_the_mean_color() -> None:
    square = pad_to_square(Image.new("RGB", (4, 2), (255, 0, 0)), (0.5, 0.25, 0.0))
    assert square.size == (4, 4)
    assert [square.getpixel((0, y)) for y in range(4)] == [(127, 63, 0), (255, 0, 0), (255, 0, 0), (127, 63, 0)]


def test_unreadable_pictures_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such picture.*none\.png"):
        open_picture(tmp_path / "none.png")
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"cannot read the picture.*bad\.png"):
        open_picture(tmp_path / "bad.png")
