"""The words of a question that name something to look for (MMTok's rule).

MMTok, Ironieser/MMTok @ d1522cd `mmtok/core/text_processor.py` and `mmtok_core.py`: two sentences that say how to
answer and 47 words that show nothing are taken out of the user's turn; what is left goes through the tokenizer word by
word, without the token that begins a text. Nothing left: the whole turn. On Qwen the released code takes nothing out,
and puts "Question: " before the turn.
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
#: Words that show nothing, in lower case; `in`, `on`, `of` and other places stay.
STOP_WORDS = frozenset(_ARTICLES | _VERBS | _PRONOUNS | _QUESTION_WORDS | _CONJUNCTIONS | _PREPOSITIONS)
_WORD = re.compile(r"\b\w+\b")


def question_words(text: str, stop_words: bool = True) -> list[str]:
    """Words of a question in order, repeated ones repeated.

    Args:
        text: the user's turn, without placeholders of pictures.
        stop_words: take out format sentences, stop words and marks (MMTok on LLaVA); False takes all there is between
            blanks (on Qwen).

    Returns:
        words; where nothing but stop words is left, all there is between blanks. An empty text has none.
    """
    if not stop_words:
        return text.split()
    for sentence in ANSWER_FORMATS:
        text = text.replace(sentence, "")
    return [word for word in _WORD.findall(text) if word.lower() not in STOP_WORDS] or text.split()
