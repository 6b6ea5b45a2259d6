"""Part-of-speech tagging: the tagger interface, and a tagger that uses spaCy's small English model.

spaCy is an optional extra, imported only when its tagger is built.

Run: `python -m pytest tests/duet/text/test_tagger.py`
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from duet.errors import UserError


class Tagger(Protocol):
    """Splits a text into words and tags each one."""

    def __call__(self, text: str) -> Iterable[tuple[int, int, str]]:
        """`(start, end, tag)` per word: its characters `text[start:end]` and universal part of speech ("NOUN", ...).

        Tags: https://universaldependencies.org/u/pos/
        """
        ...


def spacy_tagger(model: str = "en_core_web_sm") -> Tagger:
    """A tagger that runs a spaCy pipeline; the released DUET code uses `en_core_web_sm`.

    Args:
        model: name of an installed spaCy model, or its folder.

    Raises:
        UserError: spaCy or the model is not installed.
    """
    try:
        import spacy
    except ImportError as error:
        raise UserError(
            "the part-of-speech rule needs spaCy: pip install 'duet-vlm[text]', then "
            f"python -m spacy download {model}; the rule 'stopwords' needs neither"
        ) from error
    try:
        # only the tagger is needed; the parser and entities would cost time
        pipeline = spacy.load(model, exclude=["parser", "ner", "lemmatizer"])
    except OSError as error:
        raise UserError(
            f"spaCy cannot find model {model!r}: python -m spacy download {model}; the rule 'stopwords' needs none"
        ) from error

    def tag(text: str) -> list[tuple[int, int, str]]:
        return [(word.idx, word.idx + len(word), word.pos_) for word in pipeline(text)]

    return tag
