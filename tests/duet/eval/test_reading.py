"""Robust reading: byte order marks, blank lines, CRLF; errors that name file and line."""

import pytest

from duet.eval.reading import locate, need, read_json, read_lines
from duet.eval.types import InputError


def test_marks_blank_lines_and_crlf(tmp_path):
    path = tmp_path / "merged.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n   \n\xef\xbb\xbf{"a": "\xe2\x80\xa8"}\r\n')
    assert list(read_lines(path)) == [(1, {"a": 1}), (4, {"a": "\u2028"})]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1}\n{"a": 2', r"f\.jsonl:2: not JSON \(cut off"),
        (b'{"a": 1}\n{a: 2}', r"f\.jsonl:2 is not valid JSON: Expecting"),
        (b"[1]\n", r"f\.jsonl:1: holds a JSON list, expected an object"),
        (b"\xff\xfe", r"f\.jsonl is not UTF-8 text"),
        (b'{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}", "nested more than 100 deep"),
        (b'{"a": ' + b"9" * 6000 + b"}", r"f\.jsonl:1 is JSON that cannot be used"),
    ],
)
def test_errors_name_file_and_line(tmp_path, content, message):
    path = tmp_path / "f.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        list(read_lines(path))


def test_other_unusable_files(tmp_path):
    with pytest.raises(InputError, match=r"no such file: .*none\.json"):
        read_json(tmp_path / "none.json")
    with pytest.raises(InputError, match="is a folder, not a file"):
        read_json(tmp_path)
    path = tmp_path / "list.json"
    path.write_text("[]")
    with pytest.raises(InputError, match=r"list\.json: holds a JSON list, expected a dict"):
        read_json(path)
    path.write_text('{\n"a": }')
    with pytest.raises(InputError, match=r"list\.json is not valid JSON: .*line 2"):
        read_json(path)


def test_a_missing_field_is_named_with_its_place():
    with pytest.raises(InputError, match=r"f:3: field 'text' is missing \(it has: id, pred\)"):
        need({"id": 1, "pred": ""}, "text", "f:3")
    with pytest.raises(InputError, match="f:3: holds a JSON int, expected an object"):
        need(3, "text", "f:3")


def test_root_of_all_benchmarks_or_own_folder(tmp_path):
    own = tmp_path / "pope"
    own.mkdir()
    (own / "mark.json").touch()
    assert locate(tmp_path, "pope", ("mark.json",)) == own == locate(own, "pope", ("mark.json",))
    with pytest.raises(InputError, match=r"found none of mark\.json, neither there nor in gqa/"):
        locate(tmp_path, "gqa", ("mark.json",))
