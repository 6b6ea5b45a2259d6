"""Rows of conversation files: LLaVA's format, and the others that people train with, as one type.

    {"id": 1, "image": "a.png", "conversations": [{"from": "human", "value": "<image>\\nWhat is it?"}, ...]}
    {"videos": ["a.mp4"], "messages": [{"role": "user", "content": "<video>\\nWhat happens?"}, ...]}
    {"messages": [{"role": "user", "content": [{"type": "image", "image": "a.png"}, {"type": "text", "text": "..."}]}]}

`image` and `images`, `video` and `videos` hold one name or a list; `conversations` and `messages` take both spellings
of a message. Pictures, videos and text may be mixed. Every row is checked when its file is read, not hours later in
training; an error names the file, the row and its id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from duet.data.messages import DataError, Message, messages_of
from duet.text.placeholders import IMAGE, VIDEO, cut

__all__ = ["IMAGE", "VIDEO", "DataError", "Row", "parse_row", "read_rows", "words_of"]

#: Keys whose content nothing here reads; without it such a row would be trained as if it had none.
FOREIGN = ("audio", "audios")
#: Key of one or several files -> placeholder of each.
MEDIA = {"image": IMAGE, "images": IMAGE, "video": VIDEO, "videos": VIDEO}
_OWN = {"id", "conversations", "messages", *MEDIA}


@dataclass(frozen=True)
class Row:
    """One conversation.

    Attributes:
        name: its id as text.
        images, videos: files relative to their folders, in the order of their placeholders.
        turns: (question, answer) pairs; questions hold the placeholders.
        extra: the record's other keys, for example the `task` by which accuracy is reported.
        system: a system message in place of the template's own.
        leading: for each turn the placeholders that go in front of its question, set off as the family does it; empty
            if all questions hold their own.
        source: file and row, for messages.
        record: as it stands in the file; `data.tokenization: original` reads it with the original's own rules.
    """

    name: str
    images: tuple[str, ...]
    turns: tuple[tuple[str, str], ...]
    extra: Mapping[str, Any] = field(default_factory=dict)
    videos: tuple[str, ...] = ()
    system: str | None = None
    leading: tuple[tuple[str, ...], ...] = ()
    source: str = ""
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def media(self) -> list[tuple[str, str]]:
        """(placeholder, file) of every picture and video, in the order of the prompt."""
        files = {IMAGE: iter(self.images), VIDEO: iter(self.videos)}
        return [(kind, next(files[kind])) for kind in self.kinds]

    @property
    def kinds(self) -> list[str]:
        """Placeholders in the order of the prompt."""
        leading = self.leading or ((),) * len(self.turns)
        found = []
        for front, (question, _) in zip(leading, self.turns, strict=True):
            found += [*front, *(piece for piece in cut(question) if piece in (IMAGE, VIDEO))]
        return found

    @property
    def has_media(self) -> bool:
        """Whether it is about a picture or video."""
        return bool(self.images or self.videos)

    @property
    def words(self) -> int:
        """Words of all messages, LLaVA's measure of a row's length."""
        return words_of(self.record) if self.record else sum(len(text.split()) for turn in self.turns for text in turn)

    @property
    def characters(self) -> int:
        """Length of the whole text, a cheap estimate of the number of tokens."""
        return sum(len(question) + len(answer) for question, answer in self.turns)


def words_of(record: Mapping[str, Any]) -> int:
    """Words of all messages of a record, split at white space, as the original counts them."""
    return sum(len(message.text.split()) for message in messages_of(record, ""))


def read_rows(paths: str | Path | Sequence[str | Path]) -> list[Row]:
    """All rows of one or several files, in order.

    Raises:
        DataError: an unreadable file, no row at all, or the first unusable row.
    """
    from duet.data.files import read_records

    files = [paths] if isinstance(paths, (str, Path)) else list(paths)
    rows = [parse_row(record, f"{file}, row {place}") for file in files for place, record in read_records(file)]
    if not rows:
        raise DataError(f"no rows in {', '.join(map(str, files))}")
    return rows


def parse_row(record: Any, where: str) -> Row:
    """Check one record and turn it into a `Row`; `where` begins every error message.

    An answer before the first question, and a question without an answer at the end, are dropped: nothing can be
    learned from them. LLaVA drops the first, too; at the second its labels are lost.

    Raises:
        DataError: roles out of order, an empty answer, or placeholders that do not match the files.
    """
    found = messages_of(record, where)
    named = f"{where} (id {str(record.get('id'))[:80]!r})"
    for key in FOREIGN:
        if record.get(key):
            raise DataError(f"{named}: has {key!r}, which is not supported: rows have pictures, videos and text")
    if not isinstance(record.get("task", ""), str):
        raise DataError(f"{named}: 'task' is {str(record['task'])[:80]!r}; expected the name of a task")
    files = {kind: media_files(record, kind, named) for kind in (IMAGE, VIDEO)}
    system, turns = _turns(found, named)
    questions = [question for question, _ in turns]
    for kind in (IMAGE, VIDEO):
        files[kind] = _own_files(files[kind], [file for m in questions for k, file in m.media if k == kind], named)
    leading = _leading(questions, files, "messages" in record)
    row = Row(
        name=str(record.get("id", "")),
        images=files[IMAGE],
        videos=files[VIDEO],
        turns=tuple((question.text, answer.text) for question, answer in turns),
        extra={key: value for key, value in record.items() if key not in _OWN},
        system=system,
        leading=leading,
        source=where,
        record=record,
    )
    _check_placeholders(row, named)
    return row


def media_files(record: Mapping[str, Any], kind: str, where: str) -> tuple[str, ...]:
    """The pictures (`IMAGE`) or videos (`VIDEO`) that a record names.

    Raises:
        DataError: something else than names, or both spellings of the key.
    """
    keys = [key for key, each in MEDIA.items() if each == kind and record.get(key) is not None]
    if len(keys) > 1:
        raise DataError(f"{where}: has both {keys[0]!r} and {keys[1]!r}; keep one of them")
    given = record[keys[0]] if keys else []
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not all(isinstance(name, str) and name and "\0" not in name for name in names):
        what = "inside the file" if _embedded(names) else "unusable"
        raise DataError(
            f"{where}: {keys[0]!r} is {str(given)[:80]!r} ({what}); expected the name of a file or a list of such"
        )
    return tuple(names)


def _embedded(names: Any) -> bool:
    """Whether pictures are stored in the record, as the hub's parquet files do."""
    first = names[0] if isinstance(names, list) and names else names
    return isinstance(first, dict) and "bytes" in first


def _own_files(listed: tuple[str, ...], inner: list[str | None], where: str) -> tuple[str, ...]:
    """Files of one kind in the order of the prompt: those in the messages, the others from the row's list."""
    rest = list(listed)
    if not any(inner):
        return listed
    found = []
    for file in inner:
        if file is None and not rest:
            raise DataError(f"{where}: a part of a message has no file, and the row lists none for it")
        found.append(file if file is not None else rest.pop(0))
    return (*found, *rest)


def _leading(
    questions: Sequence[Message], files: Mapping[str, tuple[str, ...]], anywhere: bool
) -> tuple[tuple[str, ...], ...]:
    """Placeholders in front of each question.

    Args:
        questions: one per turn.
        files: of each kind.
        anywhere: whether files without a single placeholder go in front of the first question, as in inference.
    """
    leading = [question.leading for question in questions]
    unplaced = not any(leading) and not any(IMAGE in q.text or VIDEO in q.text for q in questions)
    if anywhere and unplaced and leading:
        leading[0] = (VIDEO,) * len(files[VIDEO]) + (IMAGE,) * len(files[IMAGE])
    return tuple(leading) if any(leading) else ()


def _turns(found: Sequence[Message], where: str) -> tuple[str | None, list[tuple[Message, Message]]]:
    """The system message and (question, answer) pairs.

    Raises:
        DataError: other roles, another order, an empty answer.
    """
    system = None
    rest = list(enumerate(found))
    if rest and rest[0][1].role == "system":
        system, rest = rest[0][1].text, rest[1:]
    if len(rest) > 2 and rest[0][1].role == "answer":
        rest = rest[1:]
    if len(rest) > 2 and len(rest) % 2 and rest[-1][1].role == "question":
        rest = rest[:-1]
    if not rest or len(rest) % 2:
        raise DataError(f"{where}: {len(rest)} messages; expected pairs of a question and an answer")
    for number, (place, message) in enumerate(rest):
        expected = ("question", "answer")[number % 2]
        if message.role != expected:
            raise DataError(
                f"{where}: message {place} must be a {expected} ('from': human or gpt, 'value': text), not from "
                f"{message.speaker[:40]!r}"
            )
        if expected == "answer" and not message.text.strip():
            raise DataError(f"{where}: message {place}: empty answer")
    spoken = [message for _, message in rest]
    return system, list(zip(spoken[::2], spoken[1::2], strict=True))


def _check_placeholders(row: Row, where: str) -> None:
    if any(kind in answer for kind in (IMAGE, VIDEO) for _, answer in row.turns):
        raise DataError(f"{where}: an answer contains {IMAGE} or {VIDEO}; placeholders belong in questions")
    kinds = row.kinds
    for kind, files, what in ((IMAGE, row.images, "picture"), (VIDEO, row.videos, "video")):
        if kinds.count(kind) != len(files):
            raise DataError(f"{where}: {len(files)} {what}(s) but {kinds.count(kind)} {kind} placeholder(s)")
