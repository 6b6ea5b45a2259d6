"""The two rules for salient words: `text -> character spans (start, end) of the words that vote`.

`by_stopwords` takes every word that is not a function word; it needs only the word list beside this file. `by_tag` is
the rule of DUET's released code (paper Sec. 3.2, the estimator F_S; `llava/salient_token_finder.py` of
AMD-AGI/DUET-VLM): content words by part of speech. Both always keep question words and `? ! :`. A word that occurs
twice votes twice.

Run: `python -m pytest tests/duet/text/test_words.py`
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from importlib import resources

from duet.text.tagger import Tagger

Span = tuple[int, int]

#: From DUET-VLM llava/salient_token_finder.py, like the next two sets.
QUESTION_WORDS = frozenset({"who", "whom", "whose", "what", "which", "where", "when", "why", "how"})
MARKS = frozenset("?!:")
CONTENT_TAGS = frozenset({"NOUN", "PROPN", "PRON", "VERB", "ADJ", "ADV"})

#: For a text with every word character replaced by `w`: words with inner apostrophes, and other single characters.
_WORD = re.compile(r"w+(?:['’]w+)*|\S")
_CLITIC = re.compile(r"['’](?:s|re|ve|m|ll|d)$", re.IGNORECASE)


def split_words(text: str) -> list[Span]:
    """Spans of words (letters, digits, combining marks of any script; inner apostrophes) and of other single marks."""
    shape = "".join("w" if unicodedata.category(c)[0] in "LNM" else c for c in text)
    return [match.span() for match in _WORD.finditer(shape)]


def by_stopwords(text: str) -> list[Span]:
    """Words that are not stop words, plus question words and `? ! :`.

    A contraction counts as the word before its apostrophe: in "what's" and "dog's", `what` and `dog` vote; "it's" and
    "don't" do not vote.
    """
    spans = []
    for start, end in split_words(text):
        word = _CLITIC.sub("", text[start:end])
        if _always(word) or (_is_word(word) and not _is_function_word(word)):
            spans.append((start, start + len(word)))
    return spans


def by_tag(text: str, tagger: Tagger) -> list[Span]:
    """Nouns, proper nouns, pronouns, verbs, adjectives and adverbs not in the list, plus question words and `? ! :`.

    Args:
        text: the question.
        tagger: gives each word's span and universal part of speech.
    """
    return [
        (start, end)
        for start, end, tag in tagger(text)
        if _always(text[start:end]) or (tag in CONTENT_TAGS and not _is_function_word(text[start:end]))
    ]


@cache
def stopwords() -> frozenset[str]:
    """The function words of `stopwords.txt`, lower case."""
    lines = resources.files("duet.text").joinpath("stopwords.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(word for line in lines if not line.startswith("#") for word in line.split())


def _always(word: str) -> bool:
    return word in MARKS or word.lower() in QUESTION_WORDS


def _is_word(word: str) -> bool:
    return any(unicodedata.category(c)[0] in "LN" for c in word)


def _is_function_word(word: str) -> bool:
    plain = word.lower().replace("’", "'")
    return plain in stopwords() or plain.endswith("n't")
