"""Records of a data file: JSON (a list), JSON lines, or parquet through Hugging Face's `datasets`."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from duet.data.messages import DataError
from duet.errors import UserError
from duet.files import blame, read_json, read_json_lines, regular_file

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
    if kind == ".parquet":
        yield from enumerate(_parquet(path))
        return
    records = read_json(path, DataError, "data file")
    if not isinstance(records, list):
        raise DataError(f"{path}: expected a list of rows, got a {type(records).__name__}")
    yield from enumerate(records)


def _parquet(path: str | Path) -> Iterator[dict[str, Any]]:
    """Rows as dictionaries; columns that are null in a row count as absent."""
    regular_file(path, DataError, "data file")
    if find_spec("datasets") is None:
        raise UserError(f"{path}: reading parquet needs Hugging Face's datasets: pip install datasets")
    import datasets

    with blame(path, DataError):
        table = datasets.Dataset.from_parquet(str(path))
        for row in table:
            yield {key: value for key, value in row.items() if value is not None}
