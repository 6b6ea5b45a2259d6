"""Reads the JSON and JSON-lines files of benchmarks and predictions; every complaint names file and line.

Byte order marks (also in the middle, as `cat` of several files leaves them), blank lines and CRLF are accepted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from duet.eval.types import InputError

BOM = "\ufeff"


def read_text(path: Path) -> str:
    """The file as text with plain line ends.

    Raises:
        InputError: there is no such file, or it is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (IsADirectoryError, PermissionError) as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start})") from None


def read_json(path: Path, kind: type = dict) -> Any:
    """The parsed file; `kind` is the type that its top level must have.

    Raises:
        InputError: not JSON, or another top level.
    """
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not JSON ({error.msg})") from None
    if not isinstance(content, kind):
        raise InputError(f"{path}: holds a JSON {type(content).__name__}, expected a {kind.__name__}")
    return content


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number (from 1) and object of every line that is not blank.

    Raises:
        InputError: a line is not a JSON object.
    """
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        line = line.strip().lstrip(BOM)
        if not line:
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            hint = "cut off? delete the line to score the rest" if not line.endswith("}") else error.msg
            raise InputError(f"{path}:{number}: not JSON ({hint})") from None
        if not isinstance(row, dict):
            raise InputError(f"{path}:{number}: holds a JSON {type(row).__name__}, expected an object")
        yield number, row


def need(row: Any, name: str, where: object) -> Any:
    """`row[name]`.

    Raises:
        InputError: the field is missing or the row no object; `where` says in which file and row.
    """
    if not isinstance(row, dict):
        raise InputError(f"{where}: holds a JSON {type(row).__name__}, expected an object")
    if name not in row:
        raise InputError(f"{where}: field {name!r} is missing (it has: {', '.join(map(str, row)) or 'nothing'})")
    return row[name]


def locate(root: Path, folder: str, markers: tuple[str, ...]) -> Path:
    """The benchmark's own folder: `root` itself if it holds one of `markers`, else `root/folder`.

    Raises:
        InputError: neither is there.
    """
    for place in (root, root / folder):
        if any((place / marker).exists() for marker in markers):
            return place
    raise InputError(
        f"{root}: found none of {', '.join(markers)}, neither there nor in {folder}/; "
        "give the folder of all benchmarks or this benchmark's own"
    )
