"""Stores every reply of a judge, one JSON line each, so none is paid for twice.

    {"key": "5f0c...", "model": "gpt-3.5-turbo", "question": ..., "answer": ..., "prediction": ..., "reply": ...}

Lines are only appended, each in one write as soon as the reply arrives: a killed run loses at most the calls in
flight, and a half line at the end is skipped. Unreadable replies are kept too, because they were paid for. Replies
are stored as received and parsed when read. Runs and prediction files may share one cache.
"""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from duet.errors import UserError
from duet.eval.judge.client import Reply

FIELDS = {"reply": str, "served": str, "prompt_tokens": int, "completion_tokens": int}


class ReplyCache:
    """Replies by request. To add replies, enter it as a context.

    Args:
        path: the file; it need not exist.

    Attributes:
        broken: lines that could not be read.

    Raises:
        UserError: `path` holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.broken = 0
        self._replies: dict[str, list[Reply]] = defaultdict(list)
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None
        try:
            lines = path.read_bytes().split(b"\n") if path.exists() else []
        except OSError as error:
            raise UserError(f"{path}: the cache cannot be read ({error.strerror})") from None
        self._load(lines[:-1])
        self._torn = bool(lines and lines[-1])
        self._load(lines[-1:])

    def _load(self, lines: Iterable[bytes]) -> None:
        lines = [line for line in lines if line.strip()]
        entries = [entry for line in lines if (entry := _read(line)) is not None]
        # only the last line may be truncated; a file of other lines is not ours
        if len(lines) > 1 and not entries:
            raise UserError(f"{self.path}: is not a cache of this command; give --cache another file")
        self.broken += len(lines) - len(entries)
        for key, reply in entries:
            self._replies[key].append(reply)

    def __enter__(self) -> ReplyCache:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab", buffering=0)
            if self._torn:
                self._file.write(b"\n")
        except OSError as error:
            raise UserError(
                f"{self.path}: the cache cannot be written ({error.strerror}); give another file with --cache"
            ) from None
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()

    def replies(self, key: str) -> list[Reply]:
        """All replies to a request, oldest first."""
        with self._lock:
            return list(self._replies.get(key, ()))

    def add(self, key: str, about: dict[str, Any], reply: Reply) -> None:
        """Keep a reply; `about` is saved with it for human readers.

        Raises:
            UserError: the disk is full or gone.
        """
        line = {"key": key, **about, "reply": reply.text, "served": reply.served}
        line |= {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens}
        if self._file is None:
            raise RuntimeError("enter the cache before adding to it")
        with self._lock:
            try:
                self._file.write(json.dumps(line).encode() + b"\n")
            except OSError as error:
                raise UserError(f"{self.path}: a reply could not be kept ({error.strerror})") from None
            self._replies[key].append(reply)


def _read(line: bytes) -> tuple[str, Reply] | None:
    try:
        entry = json.loads(line)
        values = [entry[name] for name in FIELDS]
        key = entry["key"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    fits = all(isinstance(value, kind) for value, kind in zip(values, FIELDS.values(), strict=True))
    return (key, Reply(*values)) if fits and isinstance(key, str) else None
