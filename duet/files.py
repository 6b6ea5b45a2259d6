"""Files of the user: one guarded reader per text format, and what can be known about an output before it is written.

Everything that a user names comes through here, `duet.checkpoints.files` (tensors), `duet.data.pictures` or
`duet.data.video`, so that a pipe, a folder, text in another encoding or brackets ten thousand deep are one line that
names the file wherever they turn up. `tests/broken/test_readers.py` holds the project to it.

Every function takes `error`, the class of what it raises: `UserError` or one of its children.
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

#: Brackets inside of brackets; beyond it Python's own limit of recursion would be met somewhere later.
DEPTH = 100
#: Values of a YAML file with its aliases written out; nine lines of aliases can stand for a billion values.
YAML_VALUES = 100_000
#: Longest piece of another library's message that is passed on.
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
    """What another library's exception says, on one line and not longer than it helps."""
    text = str(error).strip()
    if _WORKER in text:  # of a data loader's worker: the last line has the message
        text = text.splitlines()[-1].partition(": ")[2] or text.splitlines()[-1]
    text = " ".join(text.split()) or "no details"
    if isinstance(error, UserError):
        return text
    return f"{type(error).__name__}: {text if len(text) <= QUOTED else text[:QUOTED] + ' ...'}"


@contextmanager
def blame(source: object, error: type[UserError] = UserError, advice: str = "") -> Iterator[None]:
    """Whatever another library raises while it digests a user's file or value is the fault of that file or value.

    Args:
        source: the file or value.
        error: what is raised instead.
        advice: end of the message.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as fault:  # libraries raise what they like on bad input
        raise error(f"{source}: {one_line(fault)}" + (f"; {advice}" if advice else "")) from fault


def is_file(name: str | Path) -> bool:
    """Whether there is a regular file of this name; any text may be asked about."""
    try:
        return stat.S_ISREG(os.stat(name).st_mode)
    except (OSError, ValueError):
        return False


def is_folder(name: str | Path) -> bool:
    """Whether there is a folder of this name; any text may be asked about."""
    try:
        return stat.S_ISDIR(os.stat(name).st_mode)
    except (OSError, ValueError):
        return False


def regular_file(path: str | Path, error: type[UserError] = UserError, what: str = "file") -> Path:
    """The path, if a regular file of some content lies there: opening a pipe or a device could wait for ever.

    Raises:
        UserError: nothing there, something else than a file, empty, or not to be read.
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
        UserError: see `regular_file`; or it is not UTF-8.
    """
    try:
        data = regular_file(path, error, what).read_bytes()
    except OSError as fault:
        raise error(f"{path} cannot be read: {_reason(fault)}") from fault
    if data[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in data[:1000]:
        raise error(f"{path} is not UTF-8 text (UTF-16, or no text at all): save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        raise error(f"{path} is not UTF-8 text (byte {fault.start}): save it as UTF-8") from None


def check_text(text: str, source: str, error: type[UserError] = UserError) -> None:
    """Hold a text to be one that a tokenizer takes; `source` opens the message.

    Raises:
        UserError: it is blank, or holds bytes that are no UTF-8 (Python keeps them as surrogates).
    """
    if not text.strip():
        raise error(f"{source} is empty")
    try:
        text.encode()
    except UnicodeEncodeError as fault:
        raise error(f"{source} is not UTF-8 text (character {fault.start})") from None


def parse_json(text: str, source: object, error: type[UserError] = UserError) -> Any:
    """The value of a JSON text; `source` opens the message.

    Raises:
        UserError: not JSON; nested too deeply; a number of thousands of digits; text that is no Unicode.
    """
    try:
        content = json.loads(text)
        _check_depth(content)
        if _SURROGATE.search(text):
            json.dumps(content, ensure_ascii=False).encode()
    except json.JSONDecodeError as fault:
        raise error(f"{source} is not valid JSON: {fault}") from None
    except UnicodeEncodeError as fault:
        raise error(f"{source} holds half of a surrogate pair, {fault.object[fault.start]!a}: it is no text") from None
    except (RecursionError, ValueError) as fault:
        raise error(f"{source} is no JSON that can be used: {_limit(fault)}") from None
    return content


def read_json(path: str | Path, error: type[UserError] = UserError, what: str = "file") -> Any:
    """The value of a JSON file, of any type.

    Raises:
        UserError: see `read_text` and `parse_json`.
    """
    return parse_json(read_text(path, error, what), path, error)


def read_json_lines(path: str | Path, error: type[UserError] = UserError, what: str = "file") -> list[tuple[int, Any]]:
    """Line number (from 1) and value of every line that is not blank.

    Raises:
        UserError: see `read_text` and `parse_json`; the message names the line.
    """
    # not splitlines: U+2028 and its like may stand inside of a JSON string
    lines = enumerate(read_text(path, error, what).split("\n"), start=1)
    return [(number, parse_json(line, f"{path}:{number}", error)) for number, line in lines if line.strip()]


def parse_yaml(text: str, source: object, error: type[UserError] = UserError) -> Any:
    """The value of a YAML text; `source` opens the message.

    Raises:
        UserError: not YAML; a key twice; nested too deeply; aliases that stand for more than anybody writes.
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
        raise error(f"{source} is no YAML that can be used: {_limit(fault)}") from None
    return content


def read_yaml(path: str | Path, error: type[UserError] = UserError, what: str = "file") -> Any:
    """The value of a YAML file, of any type.

    Raises:
        UserError: see `read_text` and `parse_yaml`.
    """
    return parse_yaml(read_text(path, error, what), path, error)


def check_output_folder(path: str | Path, error: type[UserError] = UserError, space: int = 0) -> Path:
    """Make a folder for results and try it out, before hours are spent on what goes into it.

    Args:
        path: of the folder.
        error: what is raised.
        space: bytes that have to be free.

    Raises:
        UserError: it cannot be made or written to, or the disk is full.
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
    """Try out a file for results; what is in it stays, and where there is none, none is left.

    Raises:
        UserError: its folder is not there, or it cannot be written.
    """
    path = Path(path)
    try:
        if not path.parent.is_dir():
            raise error(f"{path}: no such folder {path.parent}")
        if path.exists() and not is_file(path):
            raise error(f"cannot write {path}: it is there, and not a file")
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
        """Refuses a key that stands twice: the first value would be lost without a word."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            """The mapping of a node."""
            seen = set()
            for key, _ in node.value:
                name = getattr(key, "value", None)
                if isinstance(name, str) and key.tag != "tag:yaml.org,2002:merge":
                    if (key.tag, name) in seen:
                        raise yaml.constructor.ConstructorError(
                            None, None, f"key {name!r} stands twice", key.start_mark
                        )
                    seen.add((key.tag, name))
            return super().construct_mapping(node, deep)

    return Loader


def _check_depth(content: Any, most: int | None = None) -> None:
    """Raise ValueError where containers are nested too deeply, or there are more than `most` values."""
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
