"""Records of a data file: JSON (a list), JSON lines, or parquet through Hugging Face's `datasets`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from duet.data.messages import DataError
from duet.data.parquet import ENDING, read_parquet
from duet.files import read_json, read_json_lines

LINES = (".jsonl", ".ndjson")


def read_records(path: str | Path) -> Iterator[tuple[int, Any]]:
    """Number (from 0) and content of every record of a file.

    Raises:
        DataError: unreadable, or not a list of records.
        UserError: a parquet file, and `datasets` is not installed.
    """
    kind = Path(path).suffix.lower()
    if kind in LINES:
        yield from enumerate(record for _, record in read_json_lines(path, DataError, "data file"))
        return
    if kind == ENDING:
        yield from enumerate(read_parquet(path))
        return
    records = read_json(path, DataError, "data file")
    if not isinstance(records, list):
        raise DataError(f"{path}: expected a list of rows, got a {type(records).__name__}")
    yield from enumerate(records)
