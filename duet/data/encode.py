"""Conversation -> token ids [T] and labels [T].

The prompt is built in segments whose lengths are known (`duet.llava.prompts`), tokenised once as a whole, and every
token is labelled by the segment of its first character. So all answers of a conversation are learned, with the end
token; questions, the system sentence and picture slots are IGNORED, and no text is searched for separators.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from duet.data.rows import DataError

IGNORED = -100
Template = Callable[[Sequence[tuple[str, str | None]]], Sequence[tuple[str, bool]]]


class Encoded(NamedTuple):
    """Token ids and labels, both of length T."""

    input_ids: list[int]
    labels: list[int]


def encode(segments: Sequence[tuple[str, bool]], tokenizer: Any, image_tokens: Sequence[int] = ()) -> Encoded:
    """Tokenise segments and label them; the i-th `<image>` token becomes `image_tokens[i]` of them.

    Args:
        segments: pieces of the prompt with their learned flag, in order.
        tokenizer: a fast tokenizer (offsets are needed); adds its own BOS.
        image_tokens: number of visual tokens of each picture, in order of their placeholders.

    Raises:
        DataError: if the number of placeholders differs from the number of pictures.
    """
    ends = list(accumulate(len(text) for text, _ in segments))
    tokens = tokenizer("".join(text for text, _ in segments), return_offsets_mapping=True)
    image_id = tokenizer.convert_tokens_to_ids("<image>")
    found = tokens["input_ids"].count(image_id)
    if found != len(image_tokens):
        raise DataError(f"the prompt has {found} <image> token(s) for {len(image_tokens)} picture(s)")
    sizes = iter(image_tokens)
    ids: list[int] = []
    labels: list[int] = []
    for token, (start, end) in zip(tokens["input_ids"], tokens["offset_mapping"], strict=True):
        if token == image_id:
            size = next(sizes)
            ids += [token] * size
            labels += [IGNORED] * size
            continue
        learned = end > start and segments[bisect_right(ends, start)][1]  # BOS has an empty span
        ids.append(token)
        labels.append(token if learned else IGNORED)
    return Encoded(ids, labels)
