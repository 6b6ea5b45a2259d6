"""Decode token ids to text, with the characters that each token covers.

`ids [T] -> text, one (start, end) span of characters per token`. Nothing is tokenised again: every piece is turned
into its bytes, the bytes are joined, and a token covers the characters that its bytes are part of. A character that is
split over several byte tokens belongs to all of them. Two families of subword vocabularies are supported:
sentencepiece (a space is `▁`, unknown characters fall back to `<0xE6>`) and byte-level BPE (each byte is one printable
character, a space is `Ġ`). The tokenizer may be fast or slow.

Run: `python -m pytest tests/duet/text/test_alignment.py`
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple, Protocol

from duet.errors import UserError

BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")
#: Bytes that are not valid UTF-8, as `surrogateescape` writes them: one such character per byte.
BROKEN_BYTE = re.compile("[\udc80-\udcff]")


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that reading needs."""

    all_special_ids: list[int]
    added_tokens_decoder: dict[int, Any]

    def get_vocab(self) -> dict[str, int]:
        """Piece -> id."""
        ...

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        """The piece of each id, as in the vocabulary; None for an unknown id."""
        ...


class Reading(NamedTuple):
    """Token ids as text.

    Attributes:
        text: the decoded text; special tokens appear by name.
        spans: per token, the characters `text[start:end]` that it covers, wholly or in part.
        special: per token, whether it is a special token (begin, end, picture placeholder, turn marker).
    """

    text: str
    spans: list[tuple[int, int]]
    special: list[bool]


class TokenReader:
    """Reads the ids of one tokenizer.

    Raises:
        UserError: the vocabulary is of neither family.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._to_bytes = _piece_decoder(tokenizer)
        added = tokenizer.added_tokens_decoder
        self._added = frozenset(added)
        self._special = frozenset(tokenizer.all_special_ids) | {i for i, token in added.items() if token.special}

    def read(self, ids: Sequence[int]) -> Reading:
        """Text and spans of `ids [T]`.

        Raises:
            UserError: an id is not in the vocabulary.
        """
        pieces = self._tokenizer.convert_ids_to_tokens(list(ids))
        for i, piece in zip(ids, pieces, strict=True):
            if piece is None:
                raise UserError(f"token id {i} is not in the tokenizer's vocabulary: use the one that made the prompt")
        chunks = [
            piece.encode() if i in self._added else self._to_bytes(piece) for i, piece in zip(ids, pieces, strict=True)
        ]
        text = b"".join(chunks).decode("utf-8", "surrogateescape")
        character_of_byte = [i for i, c in enumerate(text) for _ in c.encode("utf-8", "surrogateescape")]
        spans = []
        for end, chunk in zip(accumulate(map(len, chunks)), chunks, strict=True):
            covered = character_of_byte[end - len(chunk) : end]
            spans.append((covered[0], covered[-1] + 1) if covered else (0, 0))
        return Reading(BROKEN_BYTE.sub("\ufffd", text), spans, [i in self._special for i in ids])


def _piece_decoder(tokenizer: Tokenizer) -> Callable[[str], bytes]:
    """Choose the byte encoding of a vocabulary by the marker of its word-initial pieces."""
    vocabulary = tokenizer.get_vocab()
    if any(piece.startswith("▁") for piece in vocabulary):
        return _sentencepiece_bytes
    if any(piece.startswith("Ġ") for piece in vocabulary):
        return _byte_level_bytes
    raise UserError(
        f"cannot read the vocabulary of {type(tokenizer).__name__}: neither sentencepiece (▁) nor byte-level BPE (Ġ); "
        "pass your own salient finder instead"
    )


def _sentencepiece_bytes(piece: str) -> bytes:
    byte = BYTE_PIECE.fullmatch(piece)
    return bytes([int(byte[1], 16)]) if byte else piece.replace("▁", " ").encode()


def _byte_level_bytes(piece: str) -> bytes:
    return bytes(_BYTE_OF[c] for c in piece)


def _byte_level_alphabet() -> dict[str, int]:
    """Character -> byte of byte-level BPE (GPT-2): printable Latin-1 is itself, other bytes are 256, 257, ..."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


_BYTE_OF = _byte_level_alphabet()
