"""Reading LLaVA conversation files: accepted input, and error messages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from duet.data.rows import DataError, Row, parse_row, read_rows, words_of
from tests import golden_training


def record(*values: str, image: object = "a.png") -> dict:
    spoken = [{"from": ("human", "gpt")[place % 2], "value": value} for place, value in enumerate(values)]
    return {"id": "7", "conversations": spoken, **({"image": image} if image else {})}


def test_turns_pictures_and_extra_keys() -> None:
    row = parse_row({**record("<image>\nOne?", "1", "Two?", "2"), "task": "count"}, "file, row 0")
    assert row.turns == (("<image>\nOne?", "1"), ("Two?", "2"))
    assert (row.name, row.images, row.extra) == ("7", ("a.png",), {"task": "count"})


def test_several_pictures_and_none() -> None:
    assert parse_row(record("<image><image>Same?", "No", image=["a.png", "b.png"]), "").images == ("a.png", "b.png")
    assert parse_row(record("Hello?", "Hi", image=None), "").images == ()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (record("One?", "1"), r"file, row 3 \(id '7'\): 1 picture\(s\) but 0 <image> placeholder"),
        (record("<image>One?", "1", image=None), r"0 picture\(s\) but 1"),
        (record("<image>One?"), "1 messages; expected pairs"),
        (record("<image>One?", " "), "empty answer"),
        (record("One?", "<image>1"), "an answer contains"),
        ({"conversations": "text"}, "expected an object with a list"),
        (
            {"id": "7", "conversations": [{"from": "gpt", "value": "1"}, {"from": "gpt", "value": "1"}]},
            "message 0 must be",
        ),
    ],
)
def test_a_bad_row_is_named(bad: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_row(bad, "file, row 3")


@pytest.mark.parametrize("key", ["audio", "audios"])
def test_what_a_row_is_about_is_not_left_out(key: str, tmp_path: Path) -> None:
    """As text alone it would be learned without what it asks about."""
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([record("One?", "1", image=None), {**record("What?", "2", image=None), key: "a.mp4"}]))
    with pytest.raises(DataError, match=rf"rows\.json, row 1 \(id '7'\): has '{key}', which is not supported"):
        read_rows(path)
    assert read_rows_of({**record("What?", "2", image=None), key: None}).images == ()


def read_rows_of(record: dict) -> Row:
    return parse_row(record, "file, row 0")


@pytest.mark.parametrize(
    "change",
    [
        {"image": 5},
        {"image": [5]},
        {"image": {"a": "b"}},
        {"image": ""},
        {"image": ["a\0b"]},
        {"task": ["a"]},
        {"conversations": [{"from": ["human"], "value": "a"}, {"from": "gpt", "value": "b"}]},
        {"conversations": [{"from": "human", "value": 5}, {"from": "gpt", "value": "b"}]},
        {"conversations": [5, 6]},
        {"conversations": {"from": "human"}},
        {"id": [[[]]], "conversations": None},
    ],
)
def test_wrong_types_in_a_row(change: dict) -> None:
    with pytest.raises(DataError, match=r"^file, row 3"):
        parse_row({**record("<image>One?", "1"), **change}, "file, row 3")


def test_json_and_json_lines_in_order(tmp_path: Path) -> None:
    first, second = tmp_path / "a.json", tmp_path / "b.jsonl"
    first.write_text(json.dumps([record("<image>One?", "1")]))
    second.write_text(json.dumps(record("<image>Two?", "2")) + "\n\n" + json.dumps(record("<image>Three?", "3")) + "\n")
    rows = read_rows([first, second])
    assert [row.turns[0][1] for row in rows] == ["1", "2", "3"]


def test_missing_empty_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such data file"):
        read_rows(tmp_path / "none.json")
    path = tmp_path / "rows.json"
    for text, message in (("[]", "no rows"), ("{", "not valid JSON"), ("{}", "expected a list")):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            read_rows(path)


MESSAGES = [{"role": "user", "content": "<image>\nOne?"}, {"role": "assistant", "content": "1"}]


@pytest.mark.parametrize(
    "written",
    [
        {"image": "a.png", "messages": MESSAGES},
        {"images": ["a.png"], "conversations": MESSAGES},
        {"images": "a.png", "conversations": [{"from": "user", "value": "<image>\nOne?"}, MESSAGES[1]]},
        {"image": ["a.png"], "messages": [*MESSAGES, {"role": "user", "content": "And?"}]},
        {"image": "a.png", "messages": [{"role": "assistant", "content": "Hello"}, *MESSAGES]},
    ],
)
def test_spellings_of_one_row(written: dict) -> None:
    row = parse_row(written, "file, row 0")
    assert (row.images, row.turns, row.media) == (("a.png",), (("<image>\nOne?", "1"),), [("<image>", "a.png")])


def test_pictures_and_videos_in_the_order_of_the_prompt() -> None:
    spoken = record("<video>, <image> and <image>?", "1", "<image>?", "2", image=["a.png", "b.png", "c.png"])
    row = parse_row({**spoken, "video": "a.mp4"}, "")
    assert row.media == [("<video>", "a.mp4"), ("<image>", "a.png"), ("<image>", "b.png"), ("<image>", "c.png")]
    assert row.has_media


def test_parts_of_a_message_hold_files_or_take_the_row_s() -> None:
    parts = [{"type": "image", "image": "a.png"}, {"type": "video"}, {"type": "text", "text": "Same?"}]
    later = [{"type": "text", "text": "And "}, {"type": "image_url", "image_url": {"url": "b.png"}}]
    spoken = [parts, [{"type": "text", "text": "No"}], later, "No"]
    roles = ("user", "assistant") * 2
    messages = [{"role": role, "content": content} for role, content in zip(roles, spoken, strict=True)]
    row = parse_row({"messages": messages, "videos": ["a.mp4"]}, "")
    assert row.media == [("<image>", "a.png"), ("<video>", "a.mp4"), ("<image>", "b.png")]
    assert row.leading == (("<image>", "<video>"), ())
    assert row.turns == (("Same?", "No"), ("And <image>", "No"))


def test_messages_without_placeholders_get_them_in_front() -> None:
    row = parse_row({"images": ["a.png"], "messages": [{"role": "user", "content": "One?"}, MESSAGES[1]]}, "")
    assert row.leading == (("<image>",),)


def test_a_system_message_is_kept() -> None:
    row = parse_row({"image": "a.png", "messages": [{"role": "system", "content": "Be short."}, *MESSAGES]}, "")
    assert (row.system, len(row.turns)) == ("Be short.", 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": "a.png", "images": ["b.png"]}, "both 'image' and 'images'"),
        ({"images": [{"bytes": b"", "path": None}]}, "inside the file"),
        ({"video": "a.mp4"}, r"1 video\(s\) but 0 <video>"),
        ({"messages": []}, "expected an object with a list 'conversations' or 'messages'"),
        ({"conversations": [{"from": "tool", "value": "a"}, {"from": "gpt", "value": "b"}]}, "not from 'tool'"),
        ({"conversations": [{"role": "user", "content": [{"type": "audio"}]}, MESSAGES[1]]}, "message 0, part 0"),
        ({"conversations": [{"role": "user", "content": [{"type": "image"}]}, MESSAGES[1]]}, r"0 picture\(s\) but 1"),
    ],
)
def test_rows_of_other_formats_are_named(change: dict, message: str) -> None:
    given = {**record("<image>One?", "1", image="a.png" if "video" in change else None), **change}
    with pytest.raises(DataError, match=rf"^file, row 3.*{message}"):
        parse_row(given, "file, row 3")


def test_lengths_in_words_are_the_original_s() -> None:
    rows, expected = golden_training.records(), golden_training.content("modality_lengths")
    lengths = {key: words_of(row) * (1 if "image" in row else -1) for key, row in rows.items() if key in expected}
    assert lengths == expected
