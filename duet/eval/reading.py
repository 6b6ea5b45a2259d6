"""Reads the JSON and JSON-lines files of benchmarks and predictions; every error names file and line.

Byte order marks (also in the middle, as `cat` of several files leaves them), blank lines and CRLF are accepted. Fields
are read by type (`text_of`, `name_of`, ...), so a wrong type is reported with its row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from duet import files
from duet.eval.types import InputError

BOM = "\ufeff"
#: An escaped surrogate; an even number of backslashes before it are literal.
HALF = re.compile(r"(?<!\\)((?:\\\\)*)\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
#: Limits for characters of a text and of a name, far above any benchmark's.
LONGEST_TEXT, LONGEST_NAME = 100_000, 255
#: Ids that are numbers: 64 bits.
LARGEST_ID = 2**63
#: Limit for a number, far above any score, time or operation count.
LARGEST_NUMBER = 1e30


def read_text(path: Path) -> str:
    """The file as text with plain line ends.

    Raises:
        InputError: there is no such file, it is empty, or it is not UTF-8.
    """
    return files.read_text(path, InputError).replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: Path, kind: type = dict) -> Any:
    """The parsed file; `kind` is the type that its top level must have.

    Raises:
        InputError: not JSON, or another top level.
    """
    content = files.read_json(path, InputError)
    if not isinstance(content, kind):
        raise InputError(f"{path}: holds a JSON {type(content).__name__}, expected a {kind.__name__}")
    return content


def read_lines(path: Path, *, halves: bool = False) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number (from 1) and object of every line that is not blank.

    Args:
        path: of the file.
        halves: accept half of a surrogate pair, with which an answer may end that was cut off inside an emoji.

    Raises:
        InputError: a line is not a JSON object.
    """
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        line = line.strip().lstrip(BOM)
        if line:
            yield number, parse_line(line, f"{path}:{number}", halves=halves)


def parse_line(line: str, where: str, *, halves: bool = False) -> dict[str, Any]:
    """The object of one line; `halves` as for `read_lines`.

    Raises:
        InputError: it is none.
    """
    if not line.endswith("}") and line.startswith("{"):
        raise InputError(f"{where}: not JSON (cut off? delete the line to use the rest)")
    whole = HALF.sub(r"\1?", line) if halves else line
    row = files.parse_json(whole, where, InputError)
    if whole != line:
        row = json.loads(line)
    if not isinstance(row, dict):
        raise InputError(f"{where}: holds a JSON {type(row).__name__}, expected an object")
    return row


def need(row: Any, name: str, where: object) -> Any:
    """`row[name]`.

    Raises:
        InputError: the field is missing or the row is not an object; `where` names file and row.
    """
    if not isinstance(row, dict):
        raise InputError(f"{where}: holds a JSON {type(row).__name__}, expected an object")
    if name not in row:
        there = ", ".join(str(field)[:40] for field in list(row)[:20]) or "nothing"
        raise InputError(f"{where}: field {name!r} is missing (it has: {there})")
    return row[name]


def text_of(row: Any, name: str, where: object, *, blank: bool = False) -> str:
    """A text; empty only if `blank` is set.

    Raises:
        InputError: something else, or longer than any benchmark's.
    """
    value = need(row, name, where)
    if not isinstance(value, str) or not (blank or value.strip()):
        raise _unfit(where, name, value, "a text")
    if len(value) > LONGEST_TEXT:
        raise InputError(f"{where}: {name} has {len(value)} characters; at most {LONGEST_TEXT} are taken")
    return value


def optional_text(row: dict[str, Any], name: str, where: object) -> str:
    """A text that may be missing, null or empty."""
    return text_of(row, name, where, blank=True) if row.get(name) is not None else ""


def name_of(row: Any, name: str, where: object) -> str:
    """An id: a text or a whole number, as text.

    Raises:
        InputError: anything else.
    """
    value = need(row, name, where)
    number = isinstance(value, int) and not isinstance(value, bool) and abs(value) < LARGEST_ID
    word = isinstance(value, str) and value.strip() and value.isprintable() and len(value) <= LONGEST_NAME
    if not number and not word:
        raise _unfit(where, name, value, f"a text of at most {LONGEST_NAME} characters or a whole number")
    return str(value)


def path_of(row: Any, name: str, where: object) -> str:
    """The relative path of a picture or video.

    Raises:
        InputError: anything else.
    """
    value = need(row, name, where)
    parts = value.split("/") if isinstance(value, str) and len(value) <= 10 * LONGEST_NAME else []
    if not parts or not value.strip() or not value.isprintable() or max(map(len, parts)) > LONGEST_NAME:
        raise _unfit(where, name, value, "the name of a file")
    return value


def number_of(row: Any, name: str, where: object) -> float:
    """A finite number within the limit.

    Raises:
        InputError: anything else.
    """
    value = need(row, name, where)
    if not is_number(value):
        raise _unfit(where, name, value, "a number")
    return float(value)


def is_number(value: object) -> bool:
    """Whether it is a finite number within the limit."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < LARGEST_NUMBER


def texts_of(row: Any, name: str, where: object) -> list[str]:
    """A list of texts, not an empty one.

    Raises:
        InputError: anything else.
    """
    values = need(row, name, where)
    if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
        raise _unfit(where, name, values, "a list of texts")
    for value in values:
        text_of({name: value}, name, where, blank=True)
    return values


def rows_of(content: Any, name: str, where: object) -> list[dict[str, Any]]:
    """A list of objects.

    Raises:
        InputError: anything else.
    """
    values = need(content, name, where)
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise _unfit(where, name, values, "a list of objects")
    return values


def mapping_of(row: Any, name: str, where: object) -> dict[str, Any]:
    """An object; empty where the field is missing or null.

    Raises:
        InputError: anything else.
    """
    value = row.get(name)
    if value is not None and not isinstance(value, dict):
        raise _unfit(where, name, value, "an object")
    return value or {}


def shown(value: object) -> str:
    """A value for a message, shortened."""
    try:
        text = repr(value)
    except ValueError:  # a number of more digits than Python writes
        return "a number of thousands of digits"
    return text if len(text) <= 60 else f"{text[:60]} ..."


def locate(root: Path, folder: str, markers: tuple[str, ...]) -> Path:
    """The benchmark's own folder: `root` itself if it holds one of `markers`, else `root/folder`.

    Raises:
        InputError: neither is there.
    """
    for place in (root, root / folder):
        try:
            if any((place / marker).exists() for marker in markers):
                return place
        except (OSError, ValueError):
            raise InputError(f"{shown(str(root))} is not a folder of benchmarks") from None
    raise InputError(
        f"{root}: found none of {', '.join(markers)}, neither there nor in {folder}/; "
        "give the folder of all benchmarks or this benchmark's own"
    )


def _unfit(where: object, name: str, value: object, wanted: str) -> InputError:
    return InputError(f"{where}: {name} is {shown(value)}, expected {wanted}")
