"""Messages of a record, in either spelling: `from` and `value` (LLaVA), `role` and `content` (OpenAI, Qwen, TRL).

`content` is a text, or a list of parts: `{"type": "text", "text": ...}`, `{"type": "image", "image": FILE}`,
`{"type": "video", "video": FILE}`. A part without a file takes the next one of the row's `images` or `videos`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from duet.errors import UserError
from duet.text.placeholders import IMAGE, VIDEO

#: Names of the speakers -> what they say.
SPEAKERS = {
    **dict.fromkeys(("human", "user"), "question"),
    **dict.fromkeys(("gpt", "assistant"), "answer"),
    "system": "system",
}
#: Type of a part -> its placeholder.
PARTS = {"image": IMAGE, "image_url": IMAGE, "video": VIDEO, "video_url": VIDEO}
#: Keys of a part that may name its file.
FILES = ("image", "video", "path", "url", "image_url", "video_url")
_SHOWN = 80


class DataError(UserError):
    """A data file or row that is unusable for training; the message says which and why."""


class Message(NamedTuple):
    """One message.

    Attributes:
        role: `question`, `answer`, `system`, or `unknown`.
        speaker: as written in the file.
        text: with placeholders where parts with media stand between texts.
        leading: placeholders of media that precede all text.
        media: placeholder and file (None: the row's next one) of every part.
    """

    role: str
    speaker: str
    text: str
    leading: tuple[str, ...] = ()
    media: tuple[tuple[str, str | None], ...] = ()


def messages_of(record: Any, where: str) -> list[Message]:
    """The messages of a record; `where` begins every error message.

    Raises:
        DataError: no list of messages, or messages of another form.
    """
    keys = [key for key in ("conversations", "messages") if isinstance(record, dict) and key in record]
    if len(keys) != 1 or not isinstance(record[keys[0]], list):
        raise DataError(f"{where}: expected an object with a list 'conversations' or 'messages'")
    named = f"{where} (id {str(record.get('id'))[:_SHOWN]!r})"
    return [_message(each, f"{named}: message {place}") for place, each in enumerate(record[keys[0]])]


def _message(given: Any, where: str) -> Message:
    if not isinstance(given, dict):
        raise DataError(f"{where} is {str(given)[:_SHOWN]!r}; expected an object")
    speaker, content = _first(given, "from", "role"), _first(given, "value", "content")
    role = SPEAKERS.get(speaker, "unknown") if isinstance(speaker, str) else "unknown"
    if isinstance(content, str):
        return Message(role, str(speaker), content)
    if not isinstance(content, list):
        raise DataError(
            f"{where} has no text; expected 'from' and 'value' or 'role' and 'content', the latter a text or a list of "
            "parts"
        )
    return _from_parts(role, str(speaker), content, where)


def _from_parts(role: str, speaker: str, parts: list[Any], where: str) -> Message:
    text, leading, media = "", [], []
    for place, part in enumerate(parts):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            text += part["text"]
        elif kind in PARTS:
            media.append((PARTS[kind], _file(part, f"{where}, part {place}")))
            if text:
                text += PARTS[kind]
            else:
                leading.append(PARTS[kind])
        else:
            raise DataError(f"{where}, part {place} is {str(part)[:_SHOWN]!r}; expected a text, image or video")
    return Message(role, speaker, text, tuple(leading), tuple(media))


def _file(part: Mapping[str, Any], where: str) -> str | None:
    given = _first(part, *FILES)
    if isinstance(given, dict):
        given = given.get("url")
    if given is not None and not (isinstance(given, str) and given and "\0" not in given):
        raise DataError(f"{where}: {str(given)[:_SHOWN]!r} is not the name of a file")
    return given


def _first(given: Mapping[str, Any], *keys: str) -> Any:
    """The first of the keys that is set; a column of a parquet file is null where a row has none."""
    return next((given[key] for key in keys if given.get(key) is not None), None)
