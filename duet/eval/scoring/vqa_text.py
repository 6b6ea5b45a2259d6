"""Answer normalisation and soft accuracy of VQA and TextVQA, as the EvalAI server and LLaVA's `m4c_evaluator.py` do it.

    soft_accuracy("The Dakota.", ["dakota", "Dakota", "dakota digital", ...ten answers]) -> 0.0 ... 1.0

Steps of the normalisation, in order: lower case; no commas and question marks; a space before 's; punctuation is
deleted if it touches a space anywhere in the text, else it becomes a space; full stops go unless a digit follows;
number words to digits; no articles; contractions get their apostrophe back.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

PUNCTUATION = ';/[]"{}()=+\\_-><@`!'
# the reference passes a regex flag where the number of replacements should be: re.UNICODE, which is 32
MOST_FULL_STOPS = 32
FULL_STOP = re.compile(r"\.(?!\d)")
ARTICLES = {"a", "an", "the"}
COUNTED = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
DIGITS = {word: str(number) for number, word in enumerate(COUNTED)} | {"none": "0"}
# spelled with their apostrophes; each is recognised with any one apostrophe left out
CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're you've
"""
RESTORED = {
    word[:place] + word[place + 1 :]: word
    for word in CONTRACTIONS.split()
    for place, mark in enumerate(word)
    if mark == "'"
}
RESTORED["somebody'd"] = "somebodyd"  # the reference table has this pair the wrong way round


@lru_cache(maxsize=1 << 16)
def normalise(text: str) -> str:
    """The text as it is compared.

    >>> normalise("The Dakota-Digital, isnt it?")
    "dakota digital isn't it"
    """
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = text.replace("\n", " ").replace("\t", " ").strip()
    text = text.translate({ord(mark): "" if f"{mark} " in text or f" {mark}" in text else " " for mark in PUNCTUATION})
    text = FULL_STOP.sub("", text, count=MOST_FULL_STOPS)
    words = [DIGITS.get(word, word) for word in text.split()]
    return " ".join(RESTORED.get(word, word) for word in words if word not in ARTICLES)


def soft_accuracy(text: str, answers: Sequence[str]) -> float:
    """Mean over all ways to leave one of the human answers out of min(1, equal answers / 3).

    With ten answers, k of them equal to the text: 0, 0.3, 0.6, 0.9 for k = 0..3, else 1.
    """
    wanted = normalise(text)
    equal = sum(normalise(answer) == wanted for answer in answers)
    left_out_equal, left_out_other = min(3, max(equal - 1, 0)), min(3, equal)
    return (equal * left_out_equal + (len(answers) - equal) * left_out_other) / (3 * len(answers))
