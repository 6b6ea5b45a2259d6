"""Lengths of rows, and the cache that may be deleted at any time."""

from __future__ import annotations

from pathlib import Path

import pytest

from duet.data.lengths import Length, key_of, measure
from duet.data.preview import Previewer
from tests.golden_training import FOLDER


def previewer(tokenization: str = "right", version: str = "v1") -> Previewer:
    return Previewer(FOLDER / "tokenizers" / "spm", version, tokenization, 320, is_model=False)


def test_lengths_are_those_of_the_rows(tmp_path: Path) -> None:
    ours = previewer()
    rows, lengths = ours.rows(FOLDER / "rows.json"), measure(ours, FOLDER / "rows.json", tmp_path)
    assert len(lengths) == len(rows)
    for row, length in zip(rows, lengths, strict=True):
        assert length.text + length.pictures == len(row.input_ids or ())
        assert (length.learned, length.left_out) == (row.learned, row.left_out)


def test_the_second_time_they_come_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = previewer()
    first = measure(ours, FOLDER / "rows.json", tmp_path)
    monkeypatch.setattr(Previewer, "rows", lambda *given: pytest.fail("encoded again"))
    assert measure(ours, FOLDER / "rows.json", tmp_path) == first


def test_a_damaged_entry_is_made_again(tmp_path: Path) -> None:
    ours = previewer()
    first = measure(ours, FOLDER / "rows.json", tmp_path)
    (entry,) = tmp_path.iterdir()
    entry.write_text("[[1, 2")
    assert measure(ours, FOLDER / "rows.json", tmp_path) == first
    assert isinstance(first[0], Length)


def test_the_key_has_everything_that_lengths_depend_on(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    file.write_bytes((FOLDER / "rows.json").read_bytes())
    keys = {key_of(previewer(), file), key_of(previewer("original"), file), key_of(previewer(version="plain"), file)}
    file.write_text("[]")
    keys.add(key_of(previewer(), file))
    assert len(keys) == 4
