"""Text around pictures, tokenised piece by piece, as LLaVA's code does (`llava/mm_utils.py`, `tokenizer_image_token`).

Every piece is a text of its own: sentencepiece puts its blank in front of each, and the begin token that the tokenizer
puts there is kept once. Published numbers of LLaVA-1.5 were made with these ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from duet.text.placeholders import IMAGE

#: Stands for a picture, or a frame of a video, in a list of token ids.
PICTURE = -200


def pieces_apart(text: str, tokenize: Callable[[str], Sequence[int]], begin: int | None) -> list[int]:
    """Token ids of a text, a `PICTURE` for each `<image>`.

    Args:
        text: with placeholders.
        tokenize: text -> ids, with the begin token in front if the tokenizer has one.
        begin: the begin token.
    """
    chunks = [list(tokenize(chunk)) for chunk in text.split(IMAGE)]
    has_begin = bool(chunks[0]) and chunks[0][0] == begin
    ids = chunks[0][:1] if has_begin else []
    for number, chunk in enumerate(chunks):
        ids += [PICTURE] * (number > 0)
        ids += chunk[1:] if has_begin else chunk
    return ids
