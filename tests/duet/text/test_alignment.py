"""Token ids read back as text: every character found again, every token over the characters it was made of."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from duet.errors import UserError
from duet.text.alignment import TokenReader

HARD = "Naïve “日本”: 3.5 km²,\n🐱’s tail…  don’t\tस्त्री!"
PRINTABLE = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn", "Co"]), max_size=40)


def test_reads_back_what_was_written(tokenizer: PreTrainedTokenizerBase) -> None:
    reading = TokenReader(tokenizer).read(tokenizer(HARD, add_special_tokens=False).input_ids)
    assert reading.text.removeprefix(" ") == HARD


@settings(max_examples=60, deadline=None)
@given(text=PRINTABLE)
def test_spans_equal_the_offsets_of_the_encoder(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    if not tokenizer.is_fast:
        pytest.skip("a slow tokenizer gives no offsets")
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    reading = TokenReader(tokenizer).read(encoded.input_ids)
    prefix = len(reading.text) - len(text)  # sentencepiece puts a blank in front
    assert reading.text[prefix:] == text and prefix in (0, 1)
    for (start, end), (wanted_start, wanted_end) in zip(reading.spans, encoded.offset_mapping, strict=True):
        if end > prefix:  # the encoder puts a leading blank that is its own piece over the first character
            assert (max(start - prefix, 0), end - prefix) == (wanted_start, wanted_end)


def test_a_split_character_belongs_to_all_its_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = tokenizer("🐱", add_special_tokens=False).input_ids
    reading = TokenReader(tokenizer).read(ids)
    place = reading.text.index("🐱")
    assert sum(start <= place < end for start, end in reading.spans) >= 4


def test_half_a_character_is_shown_as_one_replacement_per_byte(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = tokenizer("🐱", add_special_tokens=False).input_ids
    assert TokenReader(tokenizer).read(ids[:-1]).text.strip() == "\ufffd" * 3


def test_special_tokens_are_named_and_marked(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = tokenizer("<image>\nWhy?", add_special_tokens=False).input_ids
    reading = TokenReader(tokenizer).read(ids)
    assert reading.text.strip().startswith("<image>")
    named = [
        reading.text[slice(*span)] for span, special in zip(reading.spans, reading.special, strict=True) if special
    ]
    assert named == ["<image>"]


def test_nothing_reads_as_nothing(tokenizer: PreTrainedTokenizerBase) -> None:
    assert TokenReader(tokenizer).read([]) == ("", [], [])


def test_an_added_word_is_text() -> None:
    words = {"▁a": 0, "<place 1>": 1}
    tokenizer = SimpleNamespace(
        get_vocab=lambda: words,
        convert_ids_to_tokens=lambda ids: [list(words)[i] for i in ids],
        added_tokens_decoder={1: SimpleNamespace(special=False)},
        all_special_ids=[],
    )
    assert TokenReader(tokenizer).read([0, 1]) == (" a<place 1>", [(0, 2), (2, 11)], [False, False])


def test_an_id_of_another_vocabulary_is_named() -> None:
    tokenizer = SimpleNamespace(
        get_vocab=lambda: {"▁a": 0},
        convert_ids_to_tokens=lambda ids: [{0: "▁a"}.get(i) for i in ids],
        added_tokens_decoder={},
        all_special_ids=[],
    )
    with pytest.raises(UserError, match="token id 7 is not in"):
        TokenReader(tokenizer).read([0, 7])


def test_an_unreadable_vocabulary_is_refused() -> None:
    pieces = SimpleNamespace(get_vocab=lambda: {"##ing": 0}, added_tokens_decoder={}, all_special_ids=[])
    with pytest.raises(UserError, match="pass your own salient finder"):
        TokenReader(pieces)
