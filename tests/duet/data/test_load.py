"""Several files with weights, and bad rows counted instead of stopping at the first."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from duet.data.load import (
    Source,
    draw,
    find_sources,
    load_rows,
    missing_files,
    original_parser,
    parse_source,
    scan_rows,
)
from duet.data.rows import DataError


def write(path: Path, count: int, bad: int = 0) -> str:
    def row(number: int) -> dict:
        answer = "" if number < bad else f"answer {number}"
        spoken = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": answer}]
        return {"id": number, "image": f"{number}.png", "conversations": spoken}

    path.write_text(json.dumps([row(number) for number in range(count)]))
    return str(path)


def test_weights() -> None:
    assert parse_source("a.json%50") == Source("a.json", 0.5)
    assert parse_source("50%.json") == Source("50%.json")
    with pytest.raises(DataError, match="a weight of 0 %"):
        parse_source("a.json%0")


def test_a_file_whose_name_ends_like_a_weight_is_a_file(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.json%5", 3)
    assert parse_source(path) == Source(path)


def test_draws_depend_on_seed_and_name_only() -> None:
    items = list(range(100))
    assert draw(items, 0.25, 7, "a") == draw(items, 0.25, 7, "a")
    assert draw(items, 0.25, 7, "a") != draw(items, 0.25, 8, "a") != draw(items, 0.25, 8, "b")
    assert len(draw(items, 2.5, 0, "a")) == 250
    assert draw(items, 2.5, 0, "a")[:200] == items * 2
    assert draw(items, 0.5, 0, "a") == sorted(set(draw(items, 0.5, 0, "a")))


def test_a_pattern_is_all_files_that_match_sorted_by_name(tmp_path: Path) -> None:
    for name in ("train-10.json", "train-02.json", "deep/er/train-1.json", "other.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / name, 2)
    (tmp_path / "train-folder.json").mkdir()

    def names(pattern: str) -> list[tuple[str, float]]:
        found = find_sources([str(tmp_path / pattern), str(tmp_path / "other.json")])
        return [(str(Path(source.path).relative_to(tmp_path)), source.weight) for source in found[:-1]]

    assert names("train-*.json") == [("train-02.json", 1), ("train-10.json", 1)]
    assert names("train-?0.json%50") == [("train-10.json", 0.5)]
    assert names("**/train-*.json")[0] == ("deep/er/train-1.json", 1) and len(names("**/train-*.json")) == 3
    rows = load_rows(str(tmp_path / "train-*.json"))
    assert [Path(row.source).name for row in rows] == [f"train-{n}.json, row {r}" for n in ("02", "10") for r in (0, 1)]
    with pytest.raises(DataError, match=r"no file matches .*valid-\*\.json"):
        load_rows([str(tmp_path / "train-*.json"), str(tmp_path / "valid-*.json")])


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tmp_path: Path) -> None:
    write(tmp_path / "rows[1].json", 1)
    write(tmp_path / "rows1.json", 1)
    assert [Path(source.path).name for source in find_sources(str(tmp_path / "rows[1].json"))] == ["rows[1].json"]


def test_a_mixture(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.json", 10), write(tmp_path / "b.json", 4)
    loaded = scan_rows([f"{first}%50", f"{second}%200"], seed=3)
    assert loaded.counts == {first: 5, second: 8}
    assert len(loaded.rows) == 13


def test_bad_rows_are_left_out_up_to_a_share(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "a.json", 20, bad=1)
    with caplog.at_level(logging.WARNING):
        assert len(load_rows(path, bad_rows=0.05)) == 19
    assert "1 bad rows are left out of 19" in caplog.text and "row 0" in caplog.text
    with pytest.raises(DataError, match=r"a\.json, row 0 \(id '0'\): message 1: empty answer$"):
        load_rows(path)
    path = write(tmp_path / "a.json", 20, bad=3)
    with pytest.raises(DataError, match="empty answer; 2 more rows are bad"):
        load_rows(path, bad_rows=0.05)


def test_missing_pictures_and_videos_are_bad_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", 2)
    (tmp_path / "0.png").write_bytes(b"")
    loaded = scan_rows(path, check=missing_files(tmp_path))
    assert [row.name for row in loaded.rows] == ["0"]
    assert "row 1 (id '1'): no such picture" in loaded.faults[0]


def test_rows_at_which_the_original_stops_are_bad_in_its_tokenization(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", 3, bad=1)
    records = json.loads(Path(path).read_text())
    records[1]["conversations"][0]["from"] = "system"
    Path(path).write_text(json.dumps(records))
    loaded = scan_rows(path, parse=original_parser("llava", "v1"))
    assert [row.name for row in loaded.rows] == ["0", "2"]  # an empty answer is only not learned there
    assert "KeyError: 'system'" in loaded.faults[0]
