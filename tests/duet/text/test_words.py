"""The two rules on plain text."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duet.text.words import QUESTION_WORDS, by_stopwords, by_tag, split_words, stopwords


def chosen(text: str) -> list[str]:
    return [text[start:end] for start, end in by_stopwords(text)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("What colour is the cat on the left?", ["What", "colour", "cat", "left", "?"]),
        ("Who WAS the Man: he or she!", ["Who", "Man", ":", "!"]),
        ("Is there a cat? Is the cat black?", ["cat", "?", "cat", "black", "?"]),
        ("What's the dog's name, and isn’t it Rex?", ["What", "dog", "name", "Rex", "?"]),
        ("It's not; I don't.", []),
        ("year 2015, 3.5 km (approx.)", ["year", "2015", "3", "5", "km", "approx"]),
        ("O'Brien: naïve résumé 日本 स्त्री", ["O'Brien", ":", "naïve", "résumé", "日本", "स्त्री"]),
        ("cafe\u0301 🐱 $ _ - …", ["cafe\u0301"]),
        ("", []),
        (" \n\t", []),
    ],
)
def test_stopword_rule(text: str, words: list[str]) -> None:
    assert chosen(text) == words


@given(st.text(max_size=60))
def test_words_are_ordered_disjoint_and_miss_only_white_space(text: str) -> None:
    spans = split_words(text)
    assert all(start < end for start, end in spans)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
    assert "".join(text[start:end] for start, end in spans) == "".join(text.split())
    assert set(by_stopwords(text)) <= {(start, stop) for start, end in spans for stop in range(start + 1, end + 1)}


def test_the_list_is_clean() -> None:
    assert not stopwords() & QUESTION_WORDS
    assert all(word.isalpha() and word.islower() for word in stopwords())
    assert not stopwords() & {"left", "right", "top", "bottom", "front", "side", "man", "many", "one"}


def test_tag_rule_keeps_content_question_words_and_marks() -> None:
    text = "Which very tall Dan is he slowly eating at 5 ? ,"
    tags = ["DET", "ADV", "ADJ", "PROPN", "AUX", "PRON", "ADV", "VERB", "ADP", "NUM", "PUNCT", "PUNCT"]
    starts = [text.index(word) for word in text.split()]

    def tagger(seen: str) -> list[tuple[int, int, str]]:
        assert seen == text
        return [(s, s + len(w), t) for s, w, t in zip(starts, text.split(), tags, strict=True)]

    words = [text[start:end] for start, end in by_tag(text, tagger)]
    assert words == ["Which", "tall", "Dan", "slowly", "eating", "?"]
