"""Rows of parquet files through Hugging Face's `datasets`, and the pictures stored in them.

Datasets of the hub hold a picture as `{"bytes": ..., "path": ...}`. A file of them can be larger than the memory, so a
row names its pictures (`/data/rows.parquet#7.images.0`: row 7, column `images`, the first), and each is read when it is
opened, from the memory-mapped table that `datasets` keeps in its cache.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

from duet.data.messages import DataError
from duet.extras import need
from duet.files import blame, is_file, regular_file

ENDING = ".parquet"
#: Columns with pictures or videos.
PICTURES, VIDEOS = ("image", "images"), ("video", "videos")
_NAME = re.compile(rf"(?P<file>.+{re.escape(ENDING)})#(?P<row>\d+)\.(?P<column>\w+)\.(?P<place>\d+)")
#: Rows that are made Python objects at once.
_CHUNK = 1000


def read_parquet(path: str | Path) -> Iterator[dict[str, Any]]:
    """Rows as dictionaries, names in place of stored pictures; columns that are null in a row count as absent.

    Raises:
        DataError: unreadable, or with stored videos.
        UserError: `datasets` is not installed.
    """
    regular_file(path, DataError, "data file")
    need(f"{path}: reading parquet", None, "datasets")
    with blame(path, DataError):
        whole = str(Path(path).resolve())
        table = _table(whole)
        kinds = {name: _stored(table.data.schema.field(name).type) for name in table.column_names}
        videos = [name for name in VIDEOS if kinds.get(name)]
        if videos:
            raise DataError(f"{path}: column {videos[0]!r} holds videos; only pictures may be stored in a data file")
        held = [name for name in PICTURES if kinds.get(name)]
        pictures = table.select_columns(held).with_format("arrow")
        plain = table.remove_columns([name for name, kind in kinds.items() if kind]).with_format("arrow")
        for start in range(0, len(table), _CHUNK):
            stop = min(start + _CHUNK, len(table))
            rows = plain[start:stop].to_pylist() or [{} for _ in range(start, stop)]
            for name in held:
                names = _names(pictures[start:stop].column(name), f"{whole}#{{row}}.{name}", start)
                rows = [{**row, name: found} for row, found in zip(rows, names, strict=True)]
            yield from ({key: value for key, value in row.items() if value is not None} for row in rows)


def is_stored(path: str | Path) -> bool:
    """Whether a picture's name is that of one in a parquet file, which is there."""
    found = _NAME.fullmatch(str(path))
    return found is not None and is_file(found["file"])


def picture_file(path: Path) -> Path | BytesIO:
    """What Pillow opens for the name of a picture: the file itself, or the content that a parquet file holds.

    Raises:
        DataError: no such file.
    """
    if not is_stored(path):
        regular_file(path, DataError, "picture")
        return path
    found = _NAME.fullmatch(str(path))
    assert found is not None
    with blame(path, DataError):
        column = _table(found["file"]).with_format("arrow")[int(found["row"])][found["column"]]
        value = column[0].as_py()
    each = value[int(found["place"])] if isinstance(value, list) else value
    return BytesIO(each["bytes"] if isinstance(each, dict) else each)


@cache
def _table(path: str) -> Any:
    """The memory-mapped table of a file, once per process."""
    import datasets

    return datasets.Dataset.from_parquet(path)


def _stored(kind: Any) -> bool:
    """Whether a column's type holds files: bytes, with or without a path, alone or in a list."""
    import pyarrow.types as types

    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _stored(kind.value_type)
    if types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return types.is_binary(kind) or types.is_large_binary(kind)


def _names(column: Any, source: str, first: int) -> list[Any]:
    """Names of the pictures of rows; a list for a column of lists, None where a row has none.

    A picture without bytes is a file: its path is its name.

    Args:
        column: some rows of it.
        source: file and column, with a place for the row.
        first: number of the first row.
    """
    import pyarrow.compute as compute
    import pyarrow.types as types

    rows: list[Any] = []
    for part in column.chunks:
        is_list = not (types.is_struct(part.type) or types.is_binary(part.type) or types.is_large_binary(part.type))
        sizes = compute.list_value_length(part).to_pylist() if is_list else [None] * len(part)
        found = iter(_files(part.flatten() if is_list else part))
        for size in sizes:
            name = source.format(row=first + len(rows))
            if not is_list:
                held, path = next(found)
                rows.append(f"{name}.0" if held else path)
            elif size is None:
                rows.append(None)
            else:
                each = [next(found) for _ in range(size)]
                rows.append([f"{name}.{place}" if held else path for place, (held, path) in enumerate(each)])
    return rows


def _files(values: Any) -> list[tuple[bool, str | None]]:
    """Of each picture, whether its bytes are there, and its path."""
    import pyarrow.compute as compute
    import pyarrow.types as types

    if not types.is_struct(values.type):
        return [(held, None) for held in values.is_valid().to_pylist()]
    held = compute.struct_field(values, "bytes").is_valid().to_pylist()
    has_path = values.type.get_field_index("path") >= 0
    paths = compute.struct_field(values, "path").to_pylist() if has_path else [None] * len(held)
    return list(zip(held, paths, strict=True))
