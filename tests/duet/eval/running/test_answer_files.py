"""Answers survive a kill at any byte, and several processes' files become one in question order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from duet.errors import UserError
from duet.eval.running.answer_files import AnswerFiles

KEYS = ["0:a", "1:a", "2:b"]


def line(key: str) -> dict:
    return {"key": key, "text": f"ünïcode {key}"}


def timing(batch: int) -> dict:
    return {"batch": batch, "rows": 1, "prefill_ms": 1.0, "decode_ms": 1.0, "steps": 1}


def test_merge_puts_the_answers_of_all_processes_in_order(tmp_path: Path) -> None:
    for process, key in ((0, "2:b"), (1, "0:a"), (2, "1:a")):
        AnswerFiles(tmp_path, process).append([line(key)], timing(process))
    answers = AnswerFiles(tmp_path).merge(KEYS)
    assert [answer["key"] for answer in answers] == KEYS
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predictions.jsonl", "timing.jsonl"]
    assert list(AnswerFiles(tmp_path).done()) == KEYS
    assert len(AnswerFiles(tmp_path).timings()) == 3


@pytest.mark.parametrize("left", range(0, 40, 3))
def test_a_line_without_its_end_is_dropped_before_more_is_appended(tmp_path: Path, left: int) -> None:
    files = AnswerFiles(tmp_path)
    files.append([line("0:a")], timing(0))
    whole = (tmp_path / "predictions.jsonl").read_bytes()
    torn = json.dumps(line("1:a"), ensure_ascii=False).encode()[:left]
    (tmp_path / "predictions.jsonl").write_bytes(whole + torn)
    again = AnswerFiles(tmp_path)
    assert list(again.done()) == ["0:a"]
    again.append([line("1:a")], timing(1))
    assert list(again.done()) == ["0:a", "1:a"]


def test_a_batch_that_was_timed_twice_counts_once(tmp_path: Path) -> None:
    files = AnswerFiles(tmp_path)
    files.append([], timing(0))
    files.append([line("0:a")], {**timing(0), "prefill_ms": 2.0})
    assert [found["prefill_ms"] for found in files.timings()] == [2.0]


@pytest.mark.parametrize(
    "broken",
    [b"no json", b"[1]", b"{}", b'{"key": 3}', b'{"key": "1:a", "text": null, "kept": [3]}', b"\xff\xfe",
     b'{"key": "1:a", "text": "x", "kept": []}', b'{"key": "1:a", "text": "x", "kept": ["3"]}', b"[" * 5000,
     b'{"key": "1:a", "text": "x", "kept": [3], "visual": "many"}', b'{"key": ' + b"9" * 6000 + b"}"],
)  # fmt: skip
def test_a_line_that_is_no_answer_is_named(tmp_path: Path, broken: bytes) -> None:
    good = json.dumps({**line("0:a"), "kept": [3]}).encode()
    (tmp_path / "predictions.jsonl").write_bytes(good + b"\n" + broken + b"\n" + good + b"\n")
    with pytest.raises(UserError, match=r"predictions\.jsonl:2\b.*delete the line") as found:
        AnswerFiles(tmp_path, fields=("text",), boundaries=1).done()
    assert "\n" not in str(found.value) and len(str(found.value)) < 500


@pytest.mark.parametrize("field", timing(0))
@pytest.mark.parametrize("value", [None, "1", [], -1, True, 1e400, "gone"])
def test_a_line_that_holds_no_times_is_named(tmp_path: Path, field: str, value: object) -> None:
    lines = [timing(0), {name: entry for name, entry in timing(1).items() if name != field}]
    lines[1] |= {} if value == "gone" else {field: value}
    (tmp_path / "timing.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in lines))
    with pytest.raises(UserError, match=rf"timing\.jsonl:2: {field} is"):
        AnswerFiles(tmp_path).timings()


def test_a_judges_replies_next_to_the_answers_are_not_answers(tmp_path: Path) -> None:
    files = AnswerFiles(tmp_path)
    files.append([line("0:a")], timing(0))
    (tmp_path / "predictions.judge.jsonl").write_text('{"key": "5f0c", "reply": "yes"}\n')
    assert list(AnswerFiles(tmp_path, fields=("text",)).done()) == ["0:a"]


@pytest.mark.parametrize("name", ["predictions.jsonl", "timing.jsonl"])
def test_a_folder_in_the_way_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=f"{tmp_path}.*cannot be written"):
        AnswerFiles(tmp_path).append([line("0:a")], timing(0))
