"""Records of LLaVA and Video-LLaVA -> ids and labels of the original code, a picture or frame as one id -200.

What the original does with a record, in order: media and roles are looked at, placeholders are moved, the text is
written, tokenised piece by piece, and questions are masked by counting tokens of every round. If the count misses the
length, no label of the row is learned, and training goes on. Where the original stops with an exception (LLaVA), or
draws another row at random (Video-LLaVA), the row is left out here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from duet.data.collate import IGNORED
from duet.data.original.styles import Style, find_style, written
from duet.data.original.tokenizer import OriginalTokenizer
from duet.data.rows import DataError
from duet.text.placeholders import IMAGE, VIDEO

#: Whose rules: haotian-liu/LLaVA, PKU-YuanGroup/Video-LLaVA, and Video-LLaVA as DUET-VLM trains it.
CODES = ("llava", "video_llava", "duet_video")
#: Video-LLaVA: frames that stand for a video, most pictures and videos of a row.
FRAMES, MOST_PICTURES, MOST_VIDEOS = 8, 16, 1


class LeftOut(DataError):
    """The original code makes nothing of this row."""


@dataclass(frozen=True)
class OriginalRow:
    """One row as the original feeds it.

    Attributes:
        input_ids, labels: of length T, not yet cut by the collator.
        pictures, videos: files of its media; videos come first in the model.
        warning: what the original prints, if it learns nothing from the row.
    """

    input_ids: list[int]
    labels: list[int]
    pictures: tuple[str, ...] = ()
    videos: tuple[str, ...] = ()
    warning: str | None = None


class OriginalEncoder:
    """Encodes records.

    Args:
        tokenizer: of the language model; None: only `check` is called.
        version: the original's `--version`.
        code: one of `CODES`.
    """

    def __init__(self, tokenizer: OriginalTokenizer | None, version: str, code: str = "llava") -> None:
        self.style, self.code = find_style(version), code
        if tokenizer is not None:
            self.tokenizer = tokenizer

    def check(self, record: Any) -> None:
        """Everything before the text is tokenised.

        Raises:
            LeftOut: an exception in the original.
        """
        with _failures():
            self._texts(self._read(record)[0])

    def encode(self, record: Any) -> OriginalRow:
        """Ids and labels of a record.

        Raises:
            LeftOut: an exception in the original.
        """
        with _failures():
            messages, pictures, videos, is_visual = self._read(record)
            ids, labels, warning = self._preprocess(messages, is_visual)
        return OriginalRow(ids, labels, pictures, videos, warning)

    def _read(self, record: Any) -> tuple[list[dict[str, Any]], tuple[str, ...], tuple[str, ...], bool]:
        """Messages with placeholders where the original puts them, files, and whether pieces are tokenised apart."""
        messages = [dict(message) for message in record["conversations"]]
        if self.code == "llava":
            return _read_llava(record, messages, self.style)
        return _read_video_llava(record, messages, self.style, self.code)

    def _texts(self, messages: list[dict[str, Any]]) -> list[str]:
        """The whole text, in the parts that are counted apart."""
        style = self.style
        if style.kind == "plain":
            assert len(messages) == 2, f"{len(messages)} messages instead of 2"
            assert IMAGE in messages[0]["value"], f"no {IMAGE} in the first message"
            return [IMAGE, messages[1]["value"] + style.separators[0]]
        if style.kind == "blocks":
            names = dict(zip(("human", "gpt"), style.roles, strict=True))
            blocks = [f"### {names.get(m['from'].lower(), 'unknown')}: {_text(m['value'])}\n" for m in messages]
            return [f"{style.system}\n\n", *blocks, "### "]
        return [written(style, _speakers(messages, style))]

    def _preprocess(self, messages: list[dict[str, Any]], is_visual: bool) -> tuple[list[int], list[int], str | None]:
        texts = self._texts(messages)
        text = "".join(texts)
        if self.style.kind == "plain":
            ids = self.tokenizer.apart(text)
            return ids, _ignored(ids, len(self.tokenizer.apart(IMAGE))), None
        ids = self._ids(text, is_visual)
        if self.style.kind == "blocks":
            return ids, self._mask_blocks(ids, texts[:-1], [message["from"] for message in messages], is_visual), None
        labels, warning = self._mask_rounds(ids, text, is_visual)
        return ids, labels, warning

    def _ids(self, text: str, is_visual: bool) -> list[int]:
        """Only texts without pictures are cut."""
        return self.tokenizer.apart(text) if is_visual else self.tokenizer.ids(text)[: self.tokenizer.max_length]

    def _mask_rounds(self, ids: list[int], text: str, is_visual: bool) -> tuple[list[int], str | None]:
        """Labels of the formats `two`, `llama_2` and `mpt`."""
        style, tokenizer = self.style, self.tokenizer
        answer = style.roles[1]
        start, cut, shift = 1, 2, 0
        if style.kind == "mpt":
            pieces = text.split(style.separators[0])
            rounds = [style.separators[0].join(pieces[:3])]
            rounds += [style.separators[0].join(pieces[place : place + 2]) for place in range(3, len(pieces), 2)]
            separator, start, cut = style.separators[0] + answer, 0, 1
            shift = 1 if tokenizer.legacy else 0
        elif style.kind == "llama_2":
            rounds, separator = text.split(style.separators[1]), "[/INST] "
        else:
            rounds, separator = text.split(style.separators[1]), f"{style.separators[0]}{answer}: "
            # alone, a round starts with a blank that it has not after `</s>`; Video-LLaVA was written before that
            shift = -1 if tokenizer.legacy is False and self.code != "video_llava" else 0

        def count(part: str) -> int:
            return len(tokenizer.apart(part) if is_visual else tokenizer.ids(part))

        labels, at = _ignored(ids, start), start
        for number, text_of_round in enumerate(rounds):
            parts = text_of_round.split(separator)
            if not text_of_round or len(parts) != 2:
                break
            moved = shift if number else 0
            asked = count(parts[0] + separator) - cut + moved
            _ignore(labels, at, at + asked)
            at += count(text_of_round) + moved
        _ignore(labels, at, len(labels))
        total = sum(token != tokenizer.pad for token in ids)
        if at < tokenizer.max_length and at != total:
            return [IGNORED] * len(ids), f"tokenization mismatch: {at} vs. {total}: nothing of this row is learned"
        return labels, None

    def _mask_blocks(self, ids: list[int], texts: list[str], speakers: list[str], is_visual: bool) -> list[int]:
        """Labels of `### Role: text` lines; of a question all but its first two tokens is masked."""
        sizes = [len(self._counted(part, is_visual)) for part in texts]
        at = sizes[0]
        labels = _ignored(ids, at)
        for speaker, size in zip(speakers, sizes[1:], strict=True):
            if speaker == "human":
                _ignore(labels, at + 2, at + size)
            at += size
        return labels

    def _counted(self, part: str, is_visual: bool) -> list[int]:
        ids = self._ids(part, is_visual)
        return ids if is_visual else [token for token in ids if token != self.tokenizer.pad]


def _speakers(messages: Sequence[Mapping[str, Any]], style: Style) -> list[tuple[str, Any]]:
    """(role in the text, message); an answer at the start is dropped, any other order fails."""
    roles = dict(zip(("human", "gpt"), style.roles, strict=True))
    if roles[messages[0]["from"]] != style.roles[0]:
        messages = messages[1:]
    found = []
    for place, message in enumerate(messages):
        role = roles[message["from"]]
        assert role == style.roles[place % 2], "roles do not alternate"
        found.append((role, message["value"]))
    return found


def _read_llava(
    record: Mapping[str, Any], messages: list[dict[str, Any]], style: Style
) -> tuple[list[dict[str, Any]], tuple[str, ...], tuple[str, ...], bool]:
    if "image" not in record:
        return messages, (), (), False
    if not isinstance(record["image"], str):
        raise LeftOut("the original fails on it (TypeError: 'image' is not the name of one file)")
    for message in messages:
        if IMAGE in message["value"]:
            text = f"{IMAGE}\n{message['value'].replace(IMAGE, '').strip()}".strip()
            message["value"] = text.replace(IMAGE, f"<Image>{IMAGE}</Image>") if style.tagged else text
    return messages, (record["image"],), (), True


def _read_video_llava(
    record: Mapping[str, Any], messages: list[dict[str, Any]], style: Style, code: str
) -> tuple[list[dict[str, Any]], tuple[str, ...], tuple[str, ...], bool]:
    """A video is `FRAMES` pictures; only messages that start with a placeholder are looked at more closely."""
    files = {key: _listed(record[key]) for key in ("image", "video") if key in record}
    usable = all(names and isinstance(names[0], str) for names in files.values())
    if not files or (code == "duet_video" and not usable):  # there, files that cannot be found make a row of text
        return messages, (), (), False
    if not all(isinstance(name, str) for names in files.values() for name in names):
        raise LeftOut("the original draws another row at random (TypeError: not the name of a file)")
    for message in messages:
        text = message["value"]
        if text.startswith((IMAGE, VIDEO)):
            text = text.replace(IMAGE, f"<Image>{IMAGE}</Image>") if style.tagged else text
            pictures = text.count(IMAGE)
            if pictures > MOST_PICTURES:
                text = text.replace(IMAGE * pictures, IMAGE * MOST_PICTURES).strip()
            if text.count(VIDEO) > MOST_VIDEOS:
                raise LeftOut(f"the original takes {MOST_VIDEOS} video in a message and draws another row at random")
        message["value"] = text.replace(VIDEO, IMAGE * FRAMES)
    # of more files it draws some at random; here the first ones
    pictures, videos = files.get("image", []), files.get("video", [])
    return messages, tuple(pictures[:MOST_PICTURES]), tuple(videos[:MOST_VIDEOS]), True


def _listed(given: Any) -> list[str]:
    return given if isinstance(given, list) else [given]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a message is not a text")
    return value


@contextmanager
def _failures() -> Iterator[None]:
    """Whatever stops the original leaves the row out."""
    try:
        yield
    except LeftOut:
        raise
    except (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise LeftOut(f"the original fails on it ({type(error).__name__}: {error})") from error


def _ignored(ids: list[int], end: int) -> list[int]:
    """Labels that are the ids, the first `end` masked."""
    labels = list(ids)
    _ignore(labels, 0, end)
    return labels


def _ignore(labels: list[int], start: int, end: int) -> None:
    """Mask `labels[start:end]`, whatever the numbers."""
    for place in range(*slice(start, end).indices(len(labels))):
        labels[place] = IGNORED
