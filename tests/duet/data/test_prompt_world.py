"""Training rows of every family get the ids that its processor gives in inference, and labels on their answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import duet
from duet.data.collate import IGNORED, collate
from duet.data.dataset import ConversationDataset
from duet.data.rows import DataError, Row, parse_row
from duet.errors import UserError
from duet.families import find_asking
from tests.golden_llava import FOLDER as LLAVA
from tests.golden_qwen import FOLDER as QWEN
from tests.golden_video import HF as VIDEO_LLAVA
from tests.qwen3_checkpoint import saved
from tests.small_video import write_video

SOURCES = {
    "llava": lambda: LLAVA / "weights_hf",
    "video_llava": lambda: VIDEO_LLAVA,
    "qwen2_5_vl": lambda: QWEN / "weights_hf",
    "qwen3_vl": saved,
}
VIDEOS = [name for name in SOURCES if name != "llava"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files")
    for number, size in enumerate([(90, 60), (64, 64)]):
        Image.radial_gradient("L").resize(size).convert("RGB").save(path / f"{number}.png")
    write_video(path / "a.mp4")
    return path


@pytest.fixture(scope="module", params=list(SOURCES))
def family(request: pytest.FixtureRequest) -> tuple[str, Any, Any]:
    model, processor = duet.load(str(SOURCES[request.param]()))
    return request.param, model, find_asking(model, processor)


def said(*texts: str, **media: Any) -> Row:
    spoken = [{"from": ("human", "gpt")[place % 2], "value": text} for place, text in enumerate(texts)]
    return parse_row({"id": "1", "conversations": spoken, **media}, "file, row 0")


def rows_of(name: str) -> dict[str, Row]:
    found = {
        "text": said("Is it small?", "it is", "Sure?", "yes"),
        "end": said("What is it?\n<image>", "a star", image="0.png"),
        "two": said("Is <image> like <image>?", "it is", "Why <3?", "it is red", image=["0.png", "1.png"]),
    }
    if name in VIDEOS:
        found["video"] = said("<video>\nWhat happens?", "it is red", "How?", "yes", video="a.mp4")
        found["both"] = said("Look: <video><image>\nIs it there?", "yes", image="1.png", video="a.mp4")
    return found


def test_ids_and_pixels_are_the_processor_s_and_labels_the_answers(family, folder: Path) -> None:
    name, _, asking = family
    for key, row in rows_of(name).items():
        dataset = ConversationDataset([row], asking, folder, max_length=10_000)
        text = "".join(piece.text for piece in asking.segments(row.turns))
        media = [dataset._open(kind, file) for kind, file in dataset.media_of(row)]
        expected = asking.encode(text, media)
        example = dataset[0]
        assert torch.equal(example["input_ids"], expected["input_ids"][0]), key
        assert set(example) == {"labels", *expected} - {"attention_mask"}, key
        for argument in set(expected) - {"input_ids", "attention_mask"}:
            found = example[argument]
            wanted = expected[argument]
            assert torch.equal(found, wanted[0] if argument == "mm_token_type_ids" else wanted), (key, argument)
        learned = example["labels"][example["labels"] != IGNORED]
        answers = asking.processor.tokenizer.decode(learned, skip_special_tokens=True)
        assert "".join(answers.split()) == "".join(answer for _, answer in row.turns).replace(" ", ""), key
        ends = asking.processor.tokenizer.eos_token
        assert asking.processor.tokenizer.decode(learned).count(ends) == len(row.turns), key


def test_a_mixed_batch_trains(family, folder: Path) -> None:
    name, model, asking = family
    dataset = ConversationDataset(list(rows_of(name).values()), asking, folder, max_length=10_000)
    batch = collate([dataset[place] for place in range(len(dataset))], asking.processor.tokenizer.pad_token_id, "right")
    loss = model(**batch).loss
    loss.backward()
    assert torch.isfinite(loss)
    model.zero_grad(set_to_none=True)


def test_an_open_question_is_the_prompt_of_inference(family) -> None:
    _, _, asking = family
    question = "What is it?"
    pieces = asking.segments([(f"<image>{asking.between}{question}", None)])
    assert "".join(piece.text for piece in pieces) == asking.prompt(question, ["<image>"])
    assert not any(piece.learned for piece in pieces)


def test_typed_parts_are_set_off_as_the_family_does_it(family, folder: Path) -> None:
    _, _, asking = family
    parts = [{"type": "image", "image": "0.png"}, {"type": "text", "text": "What is it?"}]
    spoken = [{"role": "user", "content": parts}, {"role": "assistant", "content": "a star"}]
    row = parse_row({"messages": spoken}, "file, row 0")
    dataset = ConversationDataset([row], asking, folder, max_length=10_000)
    prompt = asking.encode(asking.prompt("What is it?", ["<image>"]), [dataset._open("<image>", "0.png")])["input_ids"][
        0
    ]
    assert torch.equal(dataset[0]["input_ids"][: len(prompt)], prompt)


def test_a_system_message(family, folder: Path) -> None:
    _, _, asking = family
    spoken = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Is it small?"}]
    row = parse_row({"messages": [*spoken, {"role": "assistant", "content": "it is"}]}, "file, row 0")
    example = ConversationDataset([row], asking, folder)[0]
    assert "Be short." in asking.processor.tokenizer.decode(example["input_ids"])
    with pytest.raises(UserError):
        asking.segments(row.turns, "Be short.", "plain")


def test_videos_are_refused_where_the_family_takes_none(family, folder: Path) -> None:
    name, _, asking = family
    if name in VIDEOS:
        pytest.skip("takes videos")
    dataset = ConversationDataset([said("<video>\nWhat?", "It", video="a.mp4")], asking, folder)
    with pytest.raises(DataError, match=r"row 0 .*a\.mp4: this model takes pictures only"):
        dataset[0]
