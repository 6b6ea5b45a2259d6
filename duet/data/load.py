"""The rows of a recipe: several files with weights, bad rows counted and left out up to a limit.

A file may carry a weight, `rows.json%50`: half of its rows, drawn by seed (as in Qwen's `qwen-vl-finetune`); `%250`:
all of them twice, and half a third time. A name may be a pattern, `train-*.parquet`: all files that match, sorted by
name, each with the weight.
"""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from glob import glob
from pathlib import Path
from typing import Any, TypeVar

from duet.data.files import read_records
from duet.data.original import code_of
from duet.data.original.encode import OriginalEncoder
from duet.data.parquet import is_stored
from duet.data.rows import IMAGE, VIDEO, DataError, Row, parse_row
from duet.files import is_file

logger = logging.getLogger(__name__)

#: Heaviest weight in percent.
MOST = 10_000
#: Rows named in a message.
SHOWN = 5
_WEIGHT = re.compile(r"^(?P<path>.+)%(?P<percent>\d+(\.\d+)?)$")
_PATTERN = re.compile(r"[*?[]")
Item = TypeVar("Item")


@dataclass(frozen=True)
class Source:
    """A data file and its weight, 1 for all of its rows once."""

    path: str
    weight: float = 1.0


@dataclass
class Loaded:
    """Rows of several files.

    Attributes:
        rows: in the order of the files.
        faults: what is wrong with those left out; each names file and row.
        counts: rows of each source that are used, weight applied.
    """

    rows: list[Row] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Share of bad rows."""
        return len(self.faults) / max(len(self.rows) + len(self.faults), 1)


def parse_source(text: str) -> Source:
    """`PATH` or `PATH%PERCENT`.

    Raises:
        DataError: a weight of 0, or above `MOST`.

    >>> parse_source("rows.json%50")
    Source(path='rows.json', weight=0.5)
    """
    found = _WEIGHT.match(text)
    if found is None or is_file(text):
        return Source(text)
    percent = float(found["percent"])
    if not 0 < percent <= MOST:
        raise DataError(f"{text}: a weight of {percent:g} %; expected more than 0, at most {MOST}")
    return Source(found["path"], percent / 100)


def find_sources(paths: str | Sequence[str]) -> list[Source]:
    """The files of `data_path`, patterns replaced by what they match.

    A file whose name is the pattern, letter by letter, is that file. `**` stands for any number of folders.

    Raises:
        DataError: no file matches a pattern, or a weight is out of range.
    """
    found: list[Source] = []
    for text in [paths] if isinstance(paths, str) else paths:
        source = parse_source(text)
        if is_file(source.path) or not _PATTERN.search(source.path):
            found.append(source)
            continue
        matched = sorted(path for path in glob(source.path, recursive=True) if is_file(path))
        if not matched:
            raise DataError(f"no file matches {source.path}")
        found += [replace(source, path=path) for path in matched]
    return found


def draw(items: Sequence[Item], weight: float, seed: int, name: str) -> list[Item]:
    """Items by weight, in their order: whole copies, and a part drawn by seed and name.

    Args:
        items: rows of one file.
        weight: 0.5: half of them; 2: all of them twice.
        seed, name: of the draw; the same give the same items.
    """
    whole = int(weight)
    count = round((weight - whole) * len(items))
    drawn = sorted(random.Random(f"{seed}:{name}").sample(range(len(items)), count))
    return [*list(items) * whole, *(items[place] for place in drawn)]


def scan_rows(
    paths: str | Sequence[str],
    seed: int = 0,
    parse: Callable[[Any, str], Row] = parse_row,
    check: Callable[[Row], str | None] | None = None,
) -> Loaded:
    """Read all rows, and collect what is wrong instead of stopping.

    Args:
        paths: files or patterns of files, maybe with weights.
        seed: of the weights' draws.
        parse: `parse_row`, or `original_row` for the original's tokenization.
        check: says what else is wrong with a row, None if nothing is; for example `missing_files`.

    Raises:
        DataError: an unreadable file, or no row at all.
    """
    loaded = Loaded()
    for source in find_sources(paths):
        rows, place = [], -1
        for place, record in read_records(source.path):
            try:
                row = parse(record, f"{source.path}, row {place}")
                fault = check(row) if check is not None else None
            except DataError as error:
                fault = str(error)
            if fault is None:
                rows.append(row)
            else:
                loaded.faults.append(fault)
        if place < 0:
            raise DataError(f"no rows in {source.path}")
        drawn = draw(rows, source.weight, seed, Path(source.path).name)
        loaded.rows += drawn
        loaded.counts[source.path] = loaded.counts.get(source.path, 0) + len(drawn)
    return loaded


def load_rows(
    paths: str | Sequence[str],
    seed: int = 0,
    bad_rows: float = 0.0,
    parse: Callable[[Any, str], Row] = parse_row,
    check: Callable[[Row], str | None] | None = None,
) -> list[Row]:
    """The rows to train on; see `scan_rows`.

    Args:
        paths, seed, parse, check: as there.
        bad_rows: largest share of rows that may be left out; they are counted in a warning.

    Raises:
        DataError: more rows are bad; the message has the first one. Or no row is left.
    """
    loaded = scan_rows(paths, seed, parse, check)
    if loaded.faults and loaded.share > bad_rows:
        number = len(loaded.faults)
        rest = f"; {number - 1} more rows are bad (`duet data check-training` lists them)" if number > 1 else ""
        raise DataError(f"{loaded.faults[0]}{rest}")
    if not loaded.rows:
        raise DataError(f"no rows in {paths if isinstance(paths, str) else ', '.join(paths)}")
    if loaded.faults:
        shown = "; ".join(loaded.faults[:SHOWN])
        logger.warning("%d bad rows are left out of %d: %s", len(loaded.faults), len(loaded.rows), shown)
    return loaded.rows


def missing_files(image_folder: str | Path, video_folder: str | Path | None = None) -> Callable[[Row], str | None]:
    """A check for `scan_rows`: whether all pictures and videos of a row exist."""
    folders = {IMAGE: Path(image_folder), VIDEO: Path(image_folder if video_folder is None else video_folder)}
    names = {IMAGE: ("picture", "picture"), VIDEO: ("video", "video")}
    known: dict[Path, bool] = {}

    def check(row: Row) -> str | None:
        for kind, files in ((IMAGE, row.images), (VIDEO, row.videos)):
            for name in files:
                path = folders[kind] / name
                if path not in known:
                    known[path] = is_file(path) or is_stored(path)
                if not known[path]:
                    what, folder = names[kind]
                    return f"{row.source} (id {row.name!r}): no such {what}: {path} (is the {folder} folder right?)"
        return None

    return check


def original_row(record: Any, where: str, encoder: OriginalEncoder | None = None) -> Row:
    """A record for `data.tokenization: original`, which reads it with its own rules when it is encoded.

    Args:
        record, where: as for `parse_row`.
        encoder: of the model's family; asked whether the original stops at the record. None: Qwen's.

    Raises:
        DataError: not an object with messages, or one at which the original stops.
    """
    if not isinstance(record, dict) or not isinstance(record.get("conversations"), list):
        raise DataError(f"{where}: expected an object with a list 'conversations'")
    # Qwen's code reads the plural, too
    files = {key: record.get(key) or (encoder is None and record.get(f"{key}s")) or [] for key in ("image", "video")}
    listed = {key: [given] if isinstance(given, str) else given for key, given in files.items()}
    for key, names in listed.items():
        if not isinstance(names, list) or not all(isinstance(name, str) and "\0" not in name for name in names):
            raise DataError(f"{where}: {key!r} is {str(names)[:80]!r}; expected the name of a file or a list of such")
    if encoder is not None:
        try:
            encoder.check(record)
        except DataError as error:
            raise DataError(f"{where} (id {str(record.get('id'))[:80]!r}): {error}") from error
    extra = {key: value for key, value in record.items() if key not in ("id", "image", "video", "conversations")}
    return Row(
        name=str(record.get("id", "")),
        images=tuple(listed["image"]),
        turns=(),
        extra=extra,
        videos=tuple(listed["video"]),
        source=where,
        record=record,
    )


def original_parser(model_type: str, version: str | None) -> Callable[[Any, str], Row]:
    """`original_row` for a family; rows at which its code stops are bad ones.

    Args:
        model_type: of the model's config.
        version: prompt format; None: `v1`.
    """
    code = code_of(model_type)
    encoder = None if code == "qwen" else OriginalEncoder(None, version or "v1", code)
    return partial(original_row, encoder=encoder)
