"""Lengths of rows in tokens, cached on disk: text, learned labels, pictures and videos.

One file per data file, tokenizer and way of encoding, under `$DUET_CACHE` or `~/.cache/duet/lengths`. Its name is a
hash of all that determines it; deleting the folder costs only time.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duet.data.preview import Previewer
from duet.files import is_file
from duet.text.pieces import PICTURE
from duet.version import VERSION

#: Files that determine a tokenizer.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
)
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Length:
    """Length of one row.

    Attributes:
        text: tokens other than visual ones.
        learned: tokens with a label.
        pictures: pictures, and frames where the original counts them.
        left_out: why the row cannot be trained.
    """

    text: int = 0
    learned: int = 0
    pictures: int = 0
    left_out: str | None = None


def measure(previewer: Previewer, path: str | Path, cache: Path | None = None) -> list[Length]:
    """Lengths of all rows of a file, from the cache if they are there.

    Args:
        previewer: how rows are encoded.
        path: of the data file.
        cache: its folder; None: the default one.

    Raises:
        DataError: an unreadable file.
    """
    folder = cache or default_cache()
    file = folder / f"{key_of(previewer, path)}.json"
    with suppress(OSError, ValueError, TypeError):  # an absent or damaged entry is made again
        return [Length(*each) for each in json.loads(file.read_text(encoding="utf-8"))]
    found = [
        Length(
            text=sum(token != PICTURE for token in row.input_ids or ()),
            learned=row.learned,
            pictures=sum(token == PICTURE for token in row.input_ids or ()),
            left_out=row.left_out,
        )
        for row in previewer.rows(path)
    ]
    _write(file, [[each.text, each.learned, each.pictures, each.left_out] for each in found])
    return found


def default_cache() -> Path:
    """`$DUET_CACHE/lengths`, or the user's cache folder."""
    home = os.environ.get("DUET_CACHE")
    return (Path(home) if home else Path.home() / ".cache" / "duet") / "lengths"


def key_of(previewer: Previewer, path: str | Path) -> str:
    """Hash of everything that the lengths depend on."""
    parts: list[Any] = [VERSION, previewer.version, previewer.tokenization, previewer.max_length, previewer.model_type]
    files = [Path(path), *(previewer.folder / name for name in TOKENIZER_FILES)]
    return hashlib.sha256(json.dumps([*parts, *map(_hash, files)]).encode()).hexdigest()[:32]


def _hash(path: Path) -> str | None:
    if not is_file(path):
        return None
    digest = hashlib.sha256()
    with path.open("rb") as content:
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _write(file: Path, content: Sequence[Any]) -> None:
    """Write at once or not at all; a cache that cannot be written is no failure."""
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False, encoding="utf-8") as part:
            json.dump(content, part)
        Path(part.name).replace(file)
