"""MMTok's words of a question."""

from __future__ import annotations

import pytest

from duet.text.keywords import STOP_WORDS, question_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("What color is the dog's collar?", ["color", "dog", "s", "collar"]),
        (
            "Is there a Cat on the mat?\nAnswer the question using a single word or phrase.",
            ["there", "Cat", "on", "mat"],
        ),
        ("Which?\nA. 2 cats\nAnswer with the option's letter from the given choices directly.", ["2", "cats"]),
        ("A cat and a cat", ["cat", "cat"]),
        ("What is it?", ["What", "is", "it?"]),
        ("Answer the question using a single word or phrase.", []),
        ("", []),
    ],
)
def test_words_without_stop_words(text, words):
    assert question_words(text) == words


def test_a_sentence_in_other_words_stays():
    assert question_words("Answer the question with one word.") == ["one", "word"]


def test_on_qwen_nothing_is_taken_out():
    assert question_words("Question: What is the dog doing?", stop_words=False)[:3] == ["Question:", "What", "is"]


def test_there_are_47_stop_words_as_released():
    assert len(STOP_WORDS) == 47
