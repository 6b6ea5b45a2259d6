"""Choose the voting text tokens: the paper's salient-token estimator F_S (Sec. 3.2), from token ids to a mask.

`input_ids [T] of one prompt, text [T] bool -> [T] bool`: the text tokens after the last picture that belong to a
salient word (rules in `duet/text/words.py`). The engine adds the last token of the prompt.

The released code searches the bare question, not the conversation around it. Here the question is the text without
special tokens, without tokens that may not vote, and without the phrases in `ignore`, by default the role names of the
chat templates. A benchmark's closing sentence ("Answer the question using a single word or phrase.") is part of its
question files, so its words vote in the released code and here; add `ANSWER_FORMATS` to `ignore` to leave it out.

    finder = salient_finder(processor.tokenizer, ignore=ROLES + ANSWER_FORMATS)

Run: `python -m pytest tests/duet/text/test_salient.py`
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from duet.errors import UserError
from duet.text.alignment import Reading, Tokenizer, TokenReader
from duet.text.tagger import Tagger, spacy_tagger
from duet.text.words import Span, by_stopwords, by_tag, split_words

RULES = ("stopwords", "pos")

#: Role names of the templates of LLaVA and Video-LLaVA (Vicuna), LLaVA-NeXT on Mistral, and Qwen2.5-VL (ChatML).
ROLES = ("USER:", "ASSISTANT:", "[INST]", "[/INST]", "<|im_start|>system", "<|im_start|>user", "<|im_start|>assistant")

#: The sentences that LLaVA's evaluation appends to short-answer and multiple-choice questions.
ANSWER_FORMATS = (
    "Answer the question using a single word or phrase.",
    "Answer with the option's letter from the given choices directly.",
)


def salient_finder(
    tokenizer: Tokenizer, rule: str = "stopwords", tagger: Tagger | None = None, ignore: Sequence[str] = ROLES
) -> Callable[[Tensor, Tensor], Tensor]:
    """Build the salient-token finder for a tokenizer.

    Args:
        tokenizer: the one that made the prompts; sentencepiece or byte-level BPE, fast or slow.
        rule: `stopwords` (no dependency) or `pos` (the released rule, by part of speech).
        tagger: for `pos`; None loads spaCy's small English model.
        ignore: phrases whose words never vote, matched as whole words, case-sensitive, with any white space.

    Returns:
        `finder(input_ids [T], text [T] bool) -> [T] bool`, a subset of `text`; empty where no word is salient.

    Raises:
        UserError: unknown rule, a tagger for a rule that uses none, an unreadable vocabulary, or spaCy missing.
    """
    if rule not in RULES:
        raise UserError(f"unknown rule {rule!r} for salient words; choose {' or '.join(RULES)}")
    if rule == "stopwords" and tagger is not None:
        raise UserError("the rule 'stopwords' uses no tagger; choose rule='pos'")
    words = by_stopwords if rule == "stopwords" else partial(by_tag, tagger=tagger or spacy_tagger())
    reader = TokenReader(tokenizer)
    phrases = _any_of(ignore)
    # a partial, so a model with this finder can be pickled
    return partial(_find, reader, words, phrases)


def question_text(tokenizer: Tokenizer, ignore: Sequence[str] = ROLES) -> Callable[[Tensor, Tensor], str]:
    """Build a question reader: `(input_ids [T], text [T] bool) -> str`, with all other text blanked out.

    Args:
        tokenizer, ignore: as for `salient_finder`.
    """
    reader, phrases = TokenReader(tokenizer), _any_of(ignore)
    return partial(_read, reader, phrases)


def marked_words(tokenizer: Tokenizer, input_ids: Tensor, mask: Tensor) -> list[tuple[str, bool]]:
    """The words of a prompt and whether each one votes, for display.

    Args:
        tokenizer: the one that made the prompt.
        input_ids: `[T]`, one row.
        mask: `[T]` bool, the voting tokens.

    Returns:
        words and punctuation marks in order; white space before a word is kept as one space or line break, so joining
        the words gives the text. Special tokens are left out. A word votes if any of its tokens does.
    """
    _check(input_ids, mask)
    reading = TokenReader(tokenizer).read(input_ids.tolist())
    votes = mask.tolist()
    voting = _characters(span for span, vote in zip(reading.spans, votes, strict=True) if vote)
    text = _question(reading, [True] * len(votes), None)
    words: list[tuple[str, bool]] = []
    behind = 0
    for start, end in split_words(text):
        gap = text[behind:start] if words else ""
        lead = "\n" if "\n" in gap else " " if gap else ""
        words.append((lead + text[start:end], not voting.isdisjoint(range(start, end))))
        behind = end
    return words


def without_system(words: list[tuple[str, bool]]) -> list[tuple[str, bool]]:
    """Marked words from the first role name on. Mistral's `[INST]` has no system sentence in front of it."""
    plain = [word.strip() for word, _ in words]
    # Vicuna's name first: that of ChatML and LLaMA 3 is a word of its system sentence
    starts = (plain.index(role) for role in ("USER", "user") if role in plain and plain[0] != "[")
    return words[next(starts, 0) :]


class PromptWord(NamedTuple):
    """A word of a question, or several that a token holds together.

    Attributes:
        text: as written.
        columns: prompt columns of the tokens that it is made of, or part of.
    """

    text: str
    columns: tuple[int, ...]


def prompt_words(
    tokenizer: Tokenizer, input_ids: Tensor, text: Tensor, ignore: Sequence[str] = ROLES
) -> list[PromptWord]:
    """The words and punctuation marks of a question, in order, with their tokens.

    Args:
        tokenizer: the one that made the prompt.
        input_ids: `[T]`, one row.
        text: `[T]` bool, the tokens after its last picture.
        ignore: phrases that do not belong to the question.
    """
    columns = text.nonzero().flatten().tolist()
    if not columns:
        return []
    first = columns[0]
    spans = TokenReader(tokenizer).read(input_ids[first : columns[-1] + 1].tolist()).spans
    question = question_text(tokenizer, ignore)(input_ids, text)
    tokens = [
        (span, tuple(place for place, hit in enumerate(_touched(spans, [span]), first) if hit))
        for span in split_words(question)
    ]
    found = []
    for touched, group in groupby(tokens, key=lambda pair: pair[1]):
        words = [span for span, _ in group]
        found.append(PromptWord(question[words[0][0] : words[-1][1]], touched))
    return found


def _find(
    reader: TokenReader,
    words: Callable[[str], list[Span]],
    phrases: re.Pattern[str] | None,
    input_ids: Tensor,
    text: Tensor,
) -> Tensor:
    _check(input_ids, text)
    salient = torch.zeros_like(text)
    columns = text.nonzero().flatten().tolist()
    if not columns:
        return salient
    row = slice(columns[0], columns[-1] + 1)
    reading = reader.read(input_ids[row].tolist())
    question = _question(reading, text[row].tolist(), phrases)
    salient[row] = torch.tensor(_touched(reading.spans, words(question)), device=text.device)
    return salient & text


def _read(reader: TokenReader, phrases: re.Pattern[str] | None, input_ids: Tensor, text: Tensor) -> str:
    _check(input_ids, text)
    columns = text.nonzero().flatten().tolist()
    if not columns:
        return ""
    row = slice(columns[0], columns[-1] + 1)
    return _question(reader.read(input_ids[row].tolist()), text[row].tolist(), phrases)


def _question(reading: Reading, allowed: Sequence[bool], phrases: re.Pattern[str] | None) -> str:
    """The text with everything but the question replaced by spaces, so spans stay valid."""
    spans, special = reading.spans, reading.special
    elsewhere = (span for span, marker, may in zip(spans, special, allowed, strict=True) if not (may or marker))
    text = _blank(reading.text, elsewhere)
    # special tokens go last: a ChatML role name is recognised by the special token before it
    markers = (span for span, marker in zip(spans, special, strict=True) if marker)
    roles = (match.span() for match in phrases.finditer(text)) if phrases else ()
    return _blank(text, [*markers, *roles])


def _blank(text: str, spans: Iterable[Span]) -> str:
    hidden = _characters(spans)
    return "".join(" " if i in hidden else c for i, c in enumerate(text))


def _any_of(phrases: Sequence[str]) -> re.Pattern[str] | None:
    """A pattern for any of the phrases, word by word; sentencepiece may put a space between a mark and a word."""
    split = [re.findall(r"\w+|[^\w\s]", phrase) for phrase in phrases]
    patterns = [r"\s*".join(rf"\b{w}\b" if re.match(r"\w", w) else re.escape(w) for w in words) for words in split]
    return re.compile("|".join(patterns)) if patterns else None


def _touched(spans: Sequence[Span], words: Sequence[Span]) -> list[bool]:
    """For each token span, whether it shares a character with any of the words."""
    characters = _characters(words)
    return [not characters.isdisjoint(range(start, end)) for start, end in spans]


def _characters(spans: Iterable[Span]) -> set[int]:
    return {i for start, end in spans for i in range(start, end)}


def _check(input_ids: Tensor, mask: Tensor) -> None:
    if input_ids.ndim != 1 or mask.shape != input_ids.shape or mask.dtype != torch.bool:
        raise ValueError(
            f"input_ids {list(input_ids.shape)} and mask {list(mask.shape)} {mask.dtype} must both be one row [T], "
            "the mask of dtype bool"
        )
