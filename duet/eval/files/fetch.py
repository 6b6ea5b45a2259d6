"""Downloading what `duet data layout` names: resumable, with known hashes, into the benchmark's own folders.

A file without a direct address (on request, or behind a page) is not fetched; the plan says what to put where.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile, is_zipfile

import httpx2

from duet.errors import UserError
from duet.eval.files.layout import Entry, layout_of
from duet.files import check_output_folder

CHUNK = 1 << 20
TIMEOUT = httpx2.Timeout(30.0, read=60.0)


@dataclass(frozen=True)
class Step:
    """One file or folder of a benchmark.

    Attributes:
        target: where it belongs.
        entry: what is known about it.
        present: it is there already.
    """

    target: Path
    entry: Entry
    present: bool

    def __str__(self) -> str:
        if self.present:
            return f"{self.target}: there"
        if not self.entry.url:
            return f"{self.target}: by hand: {self.entry.source}"
        size = f" ({self.entry.size})" if self.entry.size else ""
        return f"{self.target}: from {self.entry.url}{size}"


def plan(task: str, root: Path) -> list[Step]:
    """What a benchmark needs, and which of it is there.

    Raises:
        InputError: there is no such benchmark.
    """
    layout = layout_of(task)
    steps = []
    for entry in layout.files:
        target = root / layout.folder / entry.path
        present = any(target.iterdir()) if target.is_dir() else target.exists()
        steps.append(Step(target, entry, present and not _partial(target).exists()))
    return steps


def fetch(step: Step, archives: Path, progress: Callable[[int, int | None], None] | None = None) -> None:
    """Download one file or archive, check it, and put it into its place.

    Args:
        step: with an address, not present.
        archives: folder of downloads; an interrupted one is continued, and one archive may serve several steps.
        progress: called with bytes so far and in all.

    Raises:
        UserError: no network, an answer other than the file, or another hash than the official one.
    """
    url = step.entry.url
    archive = check_output_folder(archives) / PurePosixPath(httpx2.URL(url).path).name
    if not archive.exists():
        download(url, archive, progress)
    if step.entry.unpack is None:
        _check_hash(archive, step.entry)
        step.target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(archive, _partial(step.target))
        _partial(step.target).replace(step.target)
    else:
        unpack(archive, step.entry.unpack, step.target)


def download(url: str, file: Path, progress: Callable[[int, int | None], None] | None = None) -> None:
    """Download `url` to `file`; what an interrupted call left (`file.part`) is continued.

    Raises:
        UserError: the address cannot be reached or does not answer with the file.
    """
    part = file.with_name(file.name + ".part")
    done = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={done}-"} if done else {})}
    try:
        with httpx2.stream("GET", url, headers=headers, timeout=TIMEOUT, follow_redirects=True) as response:
            if response.status_code == 416:
                part.unlink()
                raise UserError(f"{url}: the part that was downloaded does not fit; run it again")
            if response.status_code not in (httpx2.codes.OK, httpx2.codes.PARTIAL_CONTENT):
                raise UserError(f"{url} answers {response.status_code} {response.reason_phrase}; fetch {file} by hand")
            resumed = response.status_code == httpx2.codes.PARTIAL_CONTENT
            done = done if resumed else 0
            length = response.headers.get("content-length")
            total = done + int(length) if length else None
            with part.open("ab" if resumed else "wb") as out:
                for chunk in response.iter_raw():
                    out.write(chunk)
                    done += len(chunk)
                    if progress is not None:
                        progress(done, total)
    except httpx2.HTTPError as error:
        raise UserError(
            f"{url} could not be fetched ({type(error).__name__}): check the network and run it again, it continues; "
            f"or put the file at {file}"
        ) from error
    if total is not None and done != total:
        raise UserError(f"{url}: {done} of {total} bytes came; run it again, it continues")
    part.replace(file)


def unpack(archive: Path, prefix: str, target: Path) -> None:
    """Unpack the members under a folder of a ZIP file, or one member, to `target`.

    Raises:
        UserError: not a ZIP file, or nothing under that name.
    """
    if not is_zipfile(archive):
        raise UserError(f"{archive} is not a ZIP file; delete it and run again")
    try:
        with ZipFile(archive) as content:
            names = [name for name in content.namelist() if not name.endswith("/")]
            wanted = {name: name[len(prefix) :] for name in names if name == prefix or _under(name, prefix)}
            if not wanted:
                tops = sorted({name.split("/")[0] for name in names})[:5]
                raise UserError(f"{archive} has no {prefix}, only {', '.join(tops)}; unpack it to {target} by hand")
            for name, rest in wanted.items():
                place = target / rest if rest else target
                if not place.resolve().is_relative_to(target.resolve()):
                    raise UserError(f"{archive}: {name} would be written outside {target}")
                place.parent.mkdir(parents=True, exist_ok=True)
                with content.open(name) as source, _partial(place).open("wb") as out:
                    shutil.copyfileobj(source, out, CHUNK)
                _partial(place).replace(place)
    except BadZipFile as error:
        raise UserError(f"{archive} is damaged ({error}); delete it and run again") from error


def missing(steps: list[Step]) -> Iterator[Step]:
    """Steps that have to be done by hand."""
    return (step for step in steps if not step.present and not step.entry.url)


def _under(name: str, prefix: str) -> bool:
    return prefix.endswith("/") and name.startswith(prefix)


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _check_hash(file: Path, entry: Entry) -> None:
    if not entry.sha256:
        return
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    if (found := digest.hexdigest()) != entry.sha256:
        file.unlink()
        raise UserError(f"{file}: sha256 is {found}, the official file has {entry.sha256}; it was deleted")
