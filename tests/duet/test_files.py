"""The readers of text files, and checks of outputs before they are written."""

from __future__ import annotations

import json
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from duet.errors import UserError
from duet.files import (
    blame,
    check_output_file,
    check_output_folder,
    is_file,
    one_line,
    read_json,
    read_json_lines,
    read_text,
    read_yaml,
)


class Mine(UserError):
    """The error of some caller."""


@pytest.mark.parametrize("reader", [read_text, read_json, read_json_lines, read_yaml])
def test_what_is_no_file_is_not_opened(tmp_path: Path, reader) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    places = {
        "pipe": "is a pipe",
        "none": "no such file",
        "empty": "is empty",
        ".": "is a folder",
        "x" * 300: "no such",
    }
    for name, message in {**places, "/dev/zero": "is a device", "a\0b": "no such file"}.items():
        with pytest.raises(Mine, match=message):
            reader(str(tmp_path / name) if name != "a\0b" else name, Mine)
        assert not is_file(name)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{}".encode("utf-16"), "UTF-16"),
        ("{}".encode("utf-16-le"), "UTF-16"),
        (b'{"a": "\xe4"}', "not UTF-8 text"),
        (b"[" * 10_000 + b"]" * 10_000, "nested more than 100 deep"),
        (b"[" * 101 + b"]" * 101, "nested more than 100 deep"),
        (b'{"id": ' + b"7" * 6000 + b"}", "4300 digits"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b"{", "not valid JSON"),
    ],
)
def test_json_that_cannot_be_used(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(data)
    with pytest.raises(Mine, match=message) as found:
        read_json(path, Mine)
    assert str(path) in str(found.value) and "\n" not in str(found.value)


def test_json_with_a_byte_order_mark_and_pairs_of_surrogates(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": "\\ud83d\\ude00"}')
    assert read_json(path) == {"a": "\U0001f600"}


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    """U+2028 may occur in a JSON string, and does not end a line."""
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps("a\u2028b", ensure_ascii=False) + "\r\n\n3\n", encoding="utf-8", newline="")
    assert read_json_lines(path) == [(1, "a\u2028b"), (3, 3)]
    path.write_text("1\n{\n")
    with pytest.raises(UserError, match=r"rows\.jsonl:2 is not valid JSON"):
        read_json_lines(path)


LAUGHS = "\n".join(["a0: &a0 [1, 1]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9))])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", "duplicate key 'a'"),
        ("a: [1,", "not valid YAML: line"),
        ("a: " + "[" * 10_000, "nested more than|not valid YAML"),
        ("a: 2020-13-45", "month must be"),
        ("a: " + "7" * 6000, "digits"),
        ("a: &a {b: *a}", "nested more than"),
        (LAUGHS, "more than 100000 values|nested"),
        ("a: !!python/object:os.system x", "not valid YAML"),
    ],
)
def test_yaml_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(text)
    with pytest.raises(Mine, match=message) as found:
        read_yaml(path, Mine)
    assert str(path) in str(found.value) and "\n" not in str(found.value)


def test_what_another_library_raises_names_the_file() -> None:
    with pytest.raises(Mine, match=r"^some\.file: KeyError: 'a'; try b$"), blame("some.file", Mine, "try b"):
        {}["a"]
    with pytest.raises(UserError, match=r"^as it is$"), blame("some.file", Mine):
        raise UserError("as it is")


def test_one_line_of_a_worker_s_traceback() -> None:
    text = "Caught Mine in worker.\nOriginal Traceback (most recent call last):\n  File x\nduet.Mine: row 3: no\n"
    assert one_line(UserError(text)) == "row 3: no"


def test_outputs_are_tried_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("kept")
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/none"), tmp_path / ("x" * 300)):
        with pytest.raises(Mine, match="cannot write to the output folder"):
            check_output_folder(place, Mine)
    check_output_folder(tmp_path / "new" / "folder")
    assert not list((tmp_path / "new" / "folder").iterdir())
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 2**20))
    with pytest.raises(Mine, match=r"0\.00 GiB of free space; 1\.00 GiB are needed"):
        check_output_folder(tmp_path, Mine, space=2**30)


def test_an_output_file_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    check_output_file(tmp_path / "file")
    check_output_file(tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "kept"
    for place, message in (
        (tmp_path, "not a file"),
        (tmp_path / "a" / "b", "no such folder"),
        (Path("/proc/x"), "write"),
    ):
        with pytest.raises(Mine, match=message):
            check_output_file(place, Mine)
