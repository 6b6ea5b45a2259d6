"""The cache file: appended line by line, readable whatever happened to its end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from duet.errors import UserError
from duet.eval.judge.cache import ReplyCache
from duet.eval.judge.client import Reply

ABOUT = {"model": "judge", "question": "q", "answer": "a", "prediction": "é 中"}


def filled(path: Path, *texts: str) -> Path:
    with ReplyCache(path) as cache:
        for text in texts:
            cache.add("key", ABOUT, Reply(text, "judge-0125", 300, 12))
    return path


def test_replies_come_back_in_order(tmp_path: Path):
    path = filled(tmp_path / "new" / "cache.jsonl", "hm\n", "{'pred': 'yes', 'score': 5}")
    filled(path, "third")
    cache = ReplyCache(path)
    assert [reply.text for reply in cache.replies("key")] == ["hm\n", "{'pred': 'yes', 'score': 5}", "third"]
    assert cache.replies("key")[0] == Reply("hm\n", "judge-0125", 300, 12)
    assert cache.replies("other") == [] and cache.broken == 0
    assert json.loads(path.read_text().splitlines()[0]).items() >= ABOUT.items()


@pytest.mark.parametrize("cut", [1, 2, 60])
def test_a_torn_last_line_is_skipped_and_closed(tmp_path: Path, cut: int):
    path = filled(tmp_path / "cache.jsonl", "one", "two")
    path.write_bytes(path.read_bytes()[:-cut])
    whole = cut == 1  # only the line end is gone
    assert [reply.text for reply in ReplyCache(path).replies("key")] == (["one", "two"] if whole else ["one"])
    filled(path, "three")
    again = ReplyCache(path)
    assert [reply.text for reply in again.replies("key")] == (["one", "two", "three"] if whole else ["one", "three"])
    assert again.broken == (0 if whole else 1)


def test_every_line_is_on_disk_at_once(tmp_path: Path):
    path = tmp_path / "cache.jsonl"
    with ReplyCache(path) as cache:
        cache.add("key", ABOUT, Reply("one"))
        assert len(ReplyCache(path).replies("key")) == 1


def test_reading_makes_no_file(tmp_path: Path):
    path = tmp_path / "cache.jsonl"
    assert ReplyCache(path).replies("key") == [] and not path.exists()


def test_foreign_files_are_refused(tmp_path: Path):
    path = tmp_path / "merge.jsonl"
    path.write_text('{"id": 1, "pred": "x"}\n{"id": 2, "pred": "y"}\n')
    with pytest.raises(UserError, match=r"merge\.jsonl: is not a cache"):
        ReplyCache(path)
    assert len(path.read_text().splitlines()) == 2


def test_places_that_cannot_be_used(tmp_path: Path):
    with pytest.raises(UserError, match="cannot be read"):
        ReplyCache(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--cache"), ReplyCache(tmp_path / "file" / "cache.jsonl"):
        pass
