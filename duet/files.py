"""User files: one guarded reader per text format, and checks of outputs before they are written.

All files that a user names are read here, in `duet.checkpoints.files` (tensors), `duet.data.pictures` or
`duet.data.video`. So a pipe, a folder, text in another encoding or brackets nested ten thousand deep always give one
line that names the file. `tests/broken/test_readers.py` checks that the project keeps to this.

Every function takes `error`, the class that it raises: `UserError` or a subclass.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from duet.errors import UserError

#: Deepest nesting of brackets; anything deeper would hit Python's recursion limit later.
DEPTH = 100
#: Most values in a YAML file, aliases expanded; nine lines of aliases can expand to a billion values.
YAML_VALUES = 100_000
#: Longest part of another library's message that is quoted.
QUOTED = 300
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_WORKER = "Traceback (most recent call last)"


def one_line(error: BaseException) -> str:
    """The message of another library's exception, on one line and shortened."""
    text = str(error).strip()
    if _WORKER in text:  # of a data loader's worker: the last line has the message
        text = text.splitlines()[-1].partition(": ")[2] or text.splitlines()[-1]
    text = " ".join(text.split()) or "no details"
    if isinstance(error, UserError):
        return text
    return f"{type(error).__name__}: {text if len(text) <= QUOTED else text[:QUOTED] + ' ...'}"


@contextmanager
def blame(source: object, error: type[UserError] = UserError, advice: str = "") -> Iterator[None]:
    """Blame a user's file or value for whatever another library raises while processing it.

    Args:
        source: the file or value.
        error: class to raise instead.
        advice: end of the message.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as fault:  # libraries raise what they like on bad input
        raise error(f"{source}: {one_line(fault)}" + (f"; {advice}" if advice else "")) from fault


def is_file(name: str | Path) -> bool:
    """Whether a regular file has this name; accepts any text."""
    try:
        return stat.S_ISREG(os.stat(name).st_mode)
    except (OSError, ValueError):
        return False


def is_folder(name: str | Path) -> bool:
    """Whether a folder has this name; accepts any text."""
    try:
        return stat.S_ISDIR(os.stat(name).st_mode)
    except (OSError, ValueError):
        return False


def regular_file(path: str | Path, error: type[UserError] = UserError, what: str = "file") -> Path:
    """The path, if it is a non-empty regular file: opening a pipe or a device could block forever.

    Raises:
        UserError: it is missing, not a file, empty or unreadable.
    """
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise error(f"no such {what}: {path}") from None
    except (OSError, ValueError) as fault:
        raise error(f"no such {what}: {_shortened(path)} ({_reason(fault)})") from None
    for test, name in _KINDS:
        if test(found.st_mode):
            raise error(f"{path} is {name}, not a file; expected a {what}")
    if not os.access(path, os.R_OK):
        raise error(f"{path} cannot be read: permission denied")
    if found.st_size == 0:
        raise error(f"{path} is empty (0 bytes)")
    return Path(path)


def read_text(path: str | Path, error: type[UserError] = UserError, what: str = "file") -> str:
    """The file as text, without a byte order mark.

    Raises:
        UserError: see `regular_file`; or it is not UTF-8 text.
    """
    try:
        data = regular_file(path, error, what).read_bytes()
    except OSError as fault:
        raise error(f"{path} cannot be read: {_reason(fault)}") from fault
    if data[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in data[:1000]:
        raise error(f"{path} is not UTF-8 text (it is UTF-16 or not text at all): save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        raise error(f"{path} is not UTF-8 text (byte {fault.start}): save it as UTF-8") from None


def check_text(text: str, source: str, error: type[UserError] = UserError) -> None:
    """Check that a tokenizer can take a text; `source` starts the message.

    Raises:
        UserError: it is blank, or contains bytes that are not UTF-8 (Python keeps them as surrogates).
    """
    if not text.strip():
        raise error(f"{source} is empty")
    try:
        text.encode()
    except UnicodeEncodeError as fault:
        raise error(f"{source} is not UTF-8 text (character {fault.start})") from None


def parse_json(text: str, source: object, error: type[UserError] = UserError) -> Any:
    """The value of a JSON text; `source` starts the message.

    Raises:
        UserError: not JSON; nested too deeply; a number with thousands of digits; text that is not valid Unicode.
    """
    try:
        content = json.loads(text)
        _check_depth(content)
        if _SURROGATE.search(text):
            json.dumps(content, ensure_ascii=False).encode()
    except json.JSONDecodeError as fault:
        raise error(f"{source} is not valid JSON: {fault}") from None
    except UnicodeEncodeError as fault:
        raise error(f"{source} contains half of a surrogate pair, {fault.object[fault.start]!a}") from None
    except (RecursionError, ValueError) as fault:
        raise error(f"{source} is JSON that cannot be used: {_limit(fault)}") from None
    return content


def read_json(path: str | Path, error: type[UserError] = UserError, what: str = "file") -> Any:
    """The value of a JSON file, of any type.

    Raises:
        UserError: see `read_text` and `parse_json`.
    """
    return parse_json(read_text(path, error, what), path, error)


def read_json_lines(path: str | Path, error: type[UserError] = UserError, what: str = "file") -> list[tuple[int, Any]]:
    """Line number (from 1) and value of every non-blank line.

    Raises:
        UserError: see `read_text` and `parse_json`; the message names the line.
    """
    # not splitlines: U+2028 and similar characters may occur in a JSON string
    lines = enumerate(read_text(path, error, what).split("\n"), start=1)
    return [(number, parse_json(line, f"{path}:{number}", error)) for number, line in lines if line.strip()]


def parse_yaml(text: str, source: object, error: type[UserError] = UserError) -> Any:
    """The value of a YAML text; `source` starts the message.

    Raises:
        UserError: not YAML; a duplicate key; nested too deeply; aliases that expand to too many values.
    """
    import yaml

    try:
        content = yaml.load(text, Loader=_yaml_loader())  # a SafeLoader
        _check_depth(content, most=YAML_VALUES)
    except yaml.YAMLError as fault:
        mark = getattr(fault, "problem_mark", None)
        place = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(fault, "problem", None) or one_line(fault)
        raise error(f"{source} is not valid YAML: {place}{problem}") from None
    except (RecursionError, ValueError, OverflowError, TypeError) as fault:
        raise error(f"{source} is YAML that cannot be used: {_limit(fault)}") from None
    return content


def read_yaml(path: str | Path, error: type[UserError] = UserError, what: str = "file") -> Any:
    """The value of a YAML file, of any type.

    Raises:
        UserError: see `read_text` and `parse_yaml`.
    """
    return parse_yaml(read_text(path, error, what), path, error)


def check_output_folder(path: str | Path, error: type[UserError] = UserError, space: int = 0) -> Path:
    """Create a folder for results and test it, before hours are spent on the results.

    Args:
        path: the folder.
        error: class to raise.
        space: bytes that must be free.

    Raises:
        UserError: it cannot be created or written to, or the disk is full.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path, prefix=".duet-") as probe:
            probe.write(b"\0" * 4096)
            probe.flush()
        free = shutil.disk_usage(path).free
    except (OSError, ValueError) as fault:
        raise error(f"cannot write to the output folder {_shortened(path)}: {_reason(fault)}") from None
    if free < space:
        raise error(
            f"the output folder {path} has {free / 2**30:.2f} GiB of free space; {space / 2**30:.2f} GiB are needed"
        )
    return Path(path)


def check_output_file(path: str | Path, error: type[UserError] = UserError) -> Path:
    """Test that a file for results can be written, without changing or leaving one.

    Raises:
        UserError: its folder does not exist, or it cannot be written.
    """
    path = Path(path)
    try:
        if not path.parent.is_dir():
            raise error(f"{path}: no such folder {path.parent}")
        if path.exists() and not is_file(path):
            raise error(f"cannot write {path}: it exists and is not a file")
        new = not path.exists()
        with path.open("ab"):
            pass
        if new:
            path.unlink()
    except (OSError, ValueError) as fault:
        raise error(f"cannot write {_shortened(path)}: {_reason(fault)}") from None
    return path


@cache
def _yaml_loader() -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """Refuses duplicate keys: the first value would be lost silently."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            """The mapping of a node."""
            seen = set()
            for key, _ in node.value:
                name = getattr(key, "value", None)
                if isinstance(name, str) and key.tag != "tag:yaml.org,2002:merge":
                    if (key.tag, name) in seen:
                        raise yaml.constructor.ConstructorError(None, None, f"duplicate key {name!r}", key.start_mark)
                    seen.add((key.tag, name))
            return super().construct_mapping(node, deep)

    return Loader


def _check_depth(content: Any, most: int | None = None) -> None:
    """Raise ValueError if containers are nested too deeply, or there are more than `most` values."""
    level, depth, values = [content], 0, 0
    while level:
        depth += 1
        following: list[Any] = []
        for each in level:
            inner = each.values() if isinstance(each, dict) else each
            values += len(inner) if isinstance(each, (dict, list)) else 0
            if most is not None and values > most:
                raise ValueError(f"more than {most} values")
            if isinstance(each, (dict, list)):
                following += [value for value in inner if isinstance(value, (dict, list))]
        if depth > DEPTH:
            raise ValueError(f"nested more than {DEPTH} deep")
        level = following


def _limit(fault: Exception) -> str:
    return f"nested more than {DEPTH} deep" if isinstance(fault, RecursionError) else one_line(fault).partition(": ")[2]


def _reason(fault: Exception) -> str:
    return (getattr(fault, "strerror", None) or str(fault)).lower()


def _shortened(path: str | Path) -> str:
    text = str(path)
    return text if len(text) <= QUOTED else text[:60] + " ..."
