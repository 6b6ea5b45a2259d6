"""Text as it is streamed: whole characters, blanks, and texts that end the answer."""

from __future__ import annotations

import random

import pytest

from duet.serve.text import Writer
from tests.duet.serve.server import babbling


class Letters:
    """A tokenizer of bytes, whose characters may take several tokens."""

    def decode(self, tokens: list[int], skip_special_tokens: bool = True) -> str:
        return bytes(tokens).decode("utf-8", "replace")


def pieces(text: str, stop: tuple[str, ...] = ()) -> list[str]:
    writer, found = Writer(Letters(), stop), []
    for token in text.encode():
        found.append(writer.put(token))
        if writer.stopped:
            break
    return [*found, writer.end()]


@pytest.mark.parametrize("text", ["red", "  a red ring \n", "größer", "日本語", "🦉 owl", "", "   ", "a  b"])
def test_pieces_make_the_text(text: str) -> None:
    found = pieces(text)
    assert "".join(found) == text.strip()
    assert not any("�" in piece for piece in found)


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("one two three", ("two",), "one"),
        ("one two three", ("three", "two"), "one"),
        ("one two three", ("four",), "one two three"),
        ("one\n\ntwo", ("\n\n",), "one"),
        ("one\ntwo", ("\n\n",), "one\ntwo"),
        ("aab", ("ab",), "a"),
        ("ababac", ("abac",), "ab"),
        ("one tw", ("two",), "one tw"),
        ("###", ("###",), ""),
        ("grün", ("ü",), "gr"),
        ("x🦉y", ("🦉",), "x"),
    ],
)
def test_stop(text: str, stop: tuple[str, ...], expected: str) -> None:
    found = pieces(text, stop)
    assert "".join(found) == expected
    assert not any(s in "".join(found) for s in stop)


def test_nothing_is_taken_back() -> None:
    """A piece holds nothing that may turn out to be the beginning of a stop text, or a blank at the end."""
    assert pieces("one two", ("two",)) == ["o", "n", "e", "", "", "", "", ""]
    assert pieces("a b") == ["a", "", " b", ""]
    assert pieces("one tx", ("two",)) == ["o", "n", "e", "", "", " tx", ""]


def test_half_a_character_at_the_end_is_shown() -> None:
    writer = Writer(Letters())
    assert [writer.put(ord("a")), writer.put(0xC3), writer.end()] == ["a", "", "�"]


def test_pieces_are_what_the_tokenizer_decodes_as_a_whole() -> None:
    """Of a real tokenizer, most of whose characters are several bytes, and with special tokens between them.

    Bytes that make no character at all are left out: what a tokenizer writes for them depends on those that follow.
    """
    tokenizer = babbling().processor.tokenizer
    draw = random.Random(0)
    for _ in range(50):
        text = "".join(draw.choice("aä日🦉 \n;.<x") for _ in range(draw.randrange(1, 40)))
        tokens = tokenizer.encode(text, add_special_tokens=False)
        tokens.insert(draw.randrange(len(tokens) + 1), tokenizer.pad_token_id)
        whole = tokenizer.decode(tokens, skip_special_tokens=True)
        if "�" not in whole:  # the special token may have cut a character
            writer = Writer(tokenizer)
            assert "".join([*map(writer.put, tokens), writer.end()]) == whole.strip()
