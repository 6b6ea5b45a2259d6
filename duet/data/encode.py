"""Conversation -> token ids [T] and labels [T].

The prompt is built in segments whose lengths are known (`duet.interfaces.Asking.segments`), tokenised once as a whole,
and every token is labelled by the segment of its first character. So all answers of a conversation are learned, with
the end token; questions, the system sentence and picture slots are IGNORED, and no text is searched for separators.

A picture or video takes the text that the family's own processor writes for it, so that training sees the same ids as
inference.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

from torch import Tensor

from duet.data.collate import IGNORED, PER_TOKEN
from duet.data.rows import DataError
from duet.interfaces import Asking
from duet.text.segments import Segment

__all__ = ["IGNORED", "Encoded", "Medium", "encode", "process", "spread"]


class Encoded(NamedTuple):
    """Token ids and labels, both of length T."""

    input_ids: list[int]
    labels: list[int]


@dataclass(frozen=True)
class Medium:
    """A picture or video as the family's processor writes it.

    Attributes:
        kind: its placeholder.
        ids: its tokens.
        text: the same as text.
        pixels: arguments of the model about it, each with one picture or video.
    """

    kind: str
    ids: tuple[int, ...]
    text: str
    pixels: Mapping[str, Tensor]


def process(asking: Asking, kind: str, medium: Any) -> Medium:
    """Run the family's processor on one picture or `duet.types.Clip`."""
    tokenizer = asking.processor.tokenizer
    inputs = asking.encode(asking.marks[kind], [medium])
    ids = inputs["input_ids"].reshape(-1).tolist()
    ids = ids[1:] if ids[0] == tokenizer.bos_token_id else ids
    written = {token: tokenizer.decode([token], clean_up_tokenization_spaces=False) for token in set(ids)}
    pixels = {name: value for name, value in inputs.items() if name not in PER_TOKEN}
    return Medium(kind, tuple(ids), "".join(written[token] for token in ids), pixels)


def spread(segments: Sequence[Segment], media: Sequence[Medium], marks: Mapping[str, str]) -> list[Segment]:
    """The segments with every mark replaced by its medium's text.

    Raises:
        DataError: the marks are not those of the media, in this order.
    """
    pattern = re.compile("|".join(map(re.escape, marks.values())))
    found = [mark for piece in segments if not piece.learned for mark in pattern.findall(piece.text)]
    if found != [marks[medium.kind] for medium in media]:
        raise DataError(
            f"the prompt has {len(found)} placeholder(s) ({', '.join(found) or 'none'}) for {len(media)} picture(s) "
            f"and video(s) ({', '.join(medium.kind for medium in media) or 'none'})"
        )
    texts: Iterator[str] = iter([medium.text for medium in media])
    return [
        piece if piece.learned else Segment(pattern.sub(lambda _: next(texts), piece.text), False) for piece in segments
    ]


def encode(segments: Sequence[Segment], tokenizer: Any) -> Encoded:
    """Tokenise segments and label them.

    Args:
        segments: pieces of the prompt with their learned flag, in order, placeholders already written out.
        tokenizer: a fast tokenizer (offsets are needed); adds its own BOS.
    """
    ends = list(accumulate(len(piece.text) for piece in segments))
    tokens = tokenizer("".join(piece.text for piece in segments), return_offsets_mapping=True)
    labels = [
        token if end > start and segments[bisect_right(ends, start)].learned else IGNORED  # BOS has an empty span
        for token, (start, end) in zip(tokens["input_ids"], tokens["offset_mapping"], strict=True)
    ]
    return Encoded(list(tokens["input_ids"]), labels)
