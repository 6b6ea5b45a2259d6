"""Answers survive a kill at any byte, and several processes' files become one in question order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

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
