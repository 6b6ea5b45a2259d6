"""The words of a question that name something to look for (MMTok's rule).

MMTok, Ironieser/MMTok @ d1522cd `mmtok/core/text_processor.py` and `mmtok_core.py`: two sentences on the answer format
and 47 stop words are removed from the user's turn, and the remaining words are tokenised one by one, without the begin
token. If nothing remains, the whole turn is used. On Qwen the released code removes nothing and puts "Question: "
before the turn.
"""

from __future__ import annotations

import re

from duet.text.salient import ANSWER_FORMATS

_ARTICLES = {"a", "an", "the"}
_VERBS = {"is", "are", "was", "were", "be", "been", "being", "have", "has", "had", "do", "does", "did"}
_PRONOUNS = {"it", "they", "he", "she", "we", "you", "i"}
_QUESTION_WORDS = {"what", "where", "when", "why", "how", "who", "which", "question", "answer"}
_CONJUNCTIONS = {"and", "or", "but", "so", "if", "then"}
_PREPOSITIONS = {"to", "for", "with", "by", "from", "at", "into", "onto", "upon"}
#: Words that name nothing visible, in lower case; `in`, `on`, `of` and other words of place stay.
STOP_WORDS = frozenset(_ARTICLES | _VERBS | _PRONOUNS | _QUESTION_WORDS | _CONJUNCTIONS | _PREPOSITIONS)
_WORD = re.compile(r"\b\w+\b")


def question_words(text: str, stop_words: bool = True) -> list[str]:
    """Words of a question in order, with repetitions.

    Args:
        text: the user's turn, without picture placeholders.
        stop_words: remove format sentences, stop words and punctuation (MMTok on LLaVA); False splits at white space
            only (on Qwen).

    Returns:
        the words; if only stop words are left, all words between white space. An empty text has none.
    """
    if not stop_words:
        return text.split()
    for sentence in ANSWER_FORMATS:
        text = text.replace(sentence, "")
    return [word for word in _WORD.findall(text) if word.lower() not in STOP_WORDS] or text.split()
