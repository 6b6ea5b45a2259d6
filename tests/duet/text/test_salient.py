"""From token ids to voting tokens, with tokenizers of every family."""

from __future__ import annotations

import copy
import pickle
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from duet.errors import UserError
from duet.text.alignment import TokenReader
from duet.text.salient import ANSWER_FORMATS, ROLES, marked_words, prompt_words, question_text, salient_finder

CONTENT = ["What", "how", "bicycle", "zebra", "Warszawa", "naïve", "日本", "स्त्री", "2015", "left", "unquestionable"]
FUNCTION = ["is", "the", "of", "There", "don't", "it's", "below"]
SEPARATORS = [" ", "  ", "\n", ", ", ". ", " (", ") ", '" ', "/", "…"]


def ids_of(tokenizer: PreTrainedTokenizerBase, text: str) -> Tensor:
    return torch.tensor(tokenizer(text, add_special_tokens=False).input_ids, dtype=torch.long)


def words_marked(tokenizer: PreTrainedTokenizerBase, ids: Tensor, mask: Tensor) -> list[str]:
    """Text of each run of marked tokens, white space and glued marks apart."""
    reading = TokenReader(tokenizer).read(ids.tolist())
    on = {i for span, marked in zip(reading.spans, mask.tolist(), strict=True) if marked for i in range(*span)}
    return "".join(c if i in on else "\0" for i, c in enumerate(reading.text)).replace("\0", " ").split()


def found(tokenizer: PreTrainedTokenizerBase, text: str, **options) -> list[str]:
    ids = ids_of(tokenizer, text)
    mask = salient_finder(tokenizer, **options)(ids, torch.ones_like(ids, dtype=torch.bool))
    assert mask.dtype == torch.bool and mask.shape == ids.shape
    return words_marked(tokenizer, ids, mask)


@settings(max_examples=80, deadline=None)
@given(parts=st.lists(st.tuples(st.sampled_from(CONTENT + FUNCTION), st.sampled_from(SEPARATORS)), max_size=14))
def test_exactly_the_tokens_of_salient_words_are_marked(tokenizer: PreTrainedTokenizerBase, parts: list) -> None:
    ids = ids_of(tokenizer, "".join(word + separator for word, separator in parts))
    mask = salient_finder(tokenizer)(ids, torch.ones_like(ids, dtype=torch.bool))
    reading = TokenReader(tokenizer).read(ids.tolist())
    # the places of the content words, found without the rule under test
    wanted, behind = set(), 0
    for word, _ in parts:
        behind = reading.text.index(word, behind)
        wanted |= set(range(behind, behind + len(word))) if word in CONTENT else set()
        behind += len(word)
    assert mask.tolist() == [not wanted.isdisjoint(range(*span)) for span in reading.spans]


def test_a_finder_can_be_pickled(tokenizer: PreTrainedTokenizerBase) -> None:
    """A model that holds it is sent to other processes."""
    ids = ids_of(tokenizer, "What is the zebra below?")
    text = torch.ones_like(ids, dtype=torch.bool)
    finder, reader = salient_finder(tokenizer), question_text(tokenizer)
    assert torch.equal(pickle.loads(pickle.dumps(finder))(ids, text), finder(ids, text))
    assert pickle.loads(pickle.dumps(reader))(ids, text) == reader(ids, text)


def test_every_piece_and_every_occurrence_votes(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = ids_of(tokenizer, "zqxjkv of the zqxjkv")
    reading = TokenReader(tokenizer).read(ids.tolist())
    mask = salient_finder(tokenizer)(ids, torch.ones_like(ids, dtype=torch.bool))
    assert mask.tolist() == [bool(set(reading.text[slice(*span)]) & set("zqxjkv")) for span in reading.spans]
    assert mask.sum() > 4


def test_only_text_tokens_vote(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = ids_of(tokenizer, "zebra <image>\nWhich zebra? zebra")
    text = torch.zeros(len(ids), dtype=torch.bool)
    image = ids.tolist().index(tokenizer.convert_tokens_to_ids("<image>"))
    text[image + 1 : -1] = True
    mask = salient_finder(tokenizer)(ids, text)
    assert not (mask & ~text).any()
    assert mask.any() and not mask[: image + 1].any()


def test_answers_between_the_questions_do_not_vote(tokenizer: PreTrainedTokenizerBase) -> None:
    turns = [("USER: Which hat? ASSISTANT:", True), (" red bicycle", False), ("USER: How many? ASSISTANT:", True)]
    pieces = [(ids_of(tokenizer, text), vote) for text, vote in turns]
    ids = torch.cat([piece for piece, _ in pieces])
    text = torch.cat([torch.full_like(piece, vote, dtype=torch.bool) for piece, vote in pieces])
    mask = salient_finder(tokenizer)(ids, text)
    marked = re.sub(r"\W", "", "".join(words_marked(tokenizer, ids, mask)))
    assert marked == "WhichhatHowmany"


def test_a_row_does_not_depend_on_padding_or_what_is_in_front(tokenizer: PreTrainedTokenizerBase) -> None:
    question = ids_of(tokenizer, "\nWhich 日本 dog?")
    front, back = ids_of(tokenizer, "A chat<image>"), ids_of(tokenizer, "<image>" * 3)
    finder = salient_finder(tokenizer)
    alone = finder(question, torch.ones_like(question, dtype=torch.bool))
    text = torch.zeros(len(front) + len(question) + len(back), dtype=torch.bool)
    inside = slice(len(front), len(front) + len(question))
    text[inside] = True
    mask = finder(torch.cat([front, question, back]), text)
    assert torch.equal(mask[inside], alone) and mask.sum() == alone.sum()


@pytest.mark.parametrize("text", ["", " ", "of the", "USER: ASSISTANT:", "<image>", ", . ;"])
def test_no_salient_word(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    assert found(tokenizer, text) == []


def test_roles_never_vote_and_answer_formats_if_asked(tokenizer: PreTrainedTokenizerBase) -> None:
    text = f"<image>\nWhich hat?\n{ANSWER_FORMATS[0]} ASSISTANT:"
    formats = ["Answer", "question", "using", "single", "word", "phrase"]
    assert [re.sub(r"\W", "", word) for word in found(tokenizer, text)] == ["Which", "hat", *formats]
    assert [w.strip("?") for w in found(tokenizer, text, ignore=ROLES + ANSWER_FORMATS)] == ["Which", "hat"]
    assert "USER" in "".join(found(tokenizer, "USER: hat", ignore=()))


def test_a_phrase_is_matched_as_whole_words(tokenizer: PreTrainedTokenizerBase) -> None:
    assert found(tokenizer, "redhat red\n hat reds hats", ignore=("red hat", "hats")) == ["redhat", "reds"]


def test_role_names_of_chatml_do_not_vote_but_the_same_words_do(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_tokens([AddedToken(name, special=True, normalized=False) for name in ("<|im_start|>", "<|im_end|>")])
    text = "Which assistant?<|im_end|><|im_start|>assistant\n"
    assert [word.strip("?") for word in found(tokenizer, text)] == ["Which", "assistant"]


def test_pos_rule_sees_the_question_alone_and_its_words_find_their_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    seen = []

    def tagger(text: str) -> list[tuple[int, int, str]]:
        seen.append(text)
        tags = {"dogs": "NOUN", "run": "VERB", "the": "DET", "quickly": "ADV"}
        return [(*match.span(), tags.get(match[0].lower(), "X")) for match in re.finditer(r"\w+|[^\w\s]", text)]

    text = "USER: <image>\nDo the dogs run quickly/slowly? ASSISTANT:"
    assert found(tokenizer, text, rule="pos", tagger=tagger) == ["dogs", "run", "quickly", "?"]
    assert " ".join(seen[0].split()) == "Do the dogs run quickly/slowly?"


def test_unknown_rule_and_needless_tagger_are_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(UserError, match="unknown rule 'nouns'"):
        salient_finder(tokenizer, rule="nouns")
    with pytest.raises(UserError, match="uses no tagger"):
        salient_finder(tokenizer, tagger=lambda text: [])


def test_rows_of_the_wrong_shape_are_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ValueError, match=r"one row \[T\]"):
        salient_finder(tokenizer)(torch.zeros(2, 3, dtype=torch.long), torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="the mask of dtype bool"):
        salient_finder(tokenizer)(torch.zeros(3, dtype=torch.long), torch.ones(3, dtype=torch.long))


def test_marked_words_show_the_text_and_its_voters(tokenizer: PreTrainedTokenizerBase) -> None:
    text = "USER: <image><image>\nWhich  bicycle's 日本? ASSISTANT:"
    ids = ids_of(tokenizer, text)
    mask = salient_finder(tokenizer)(ids, torch.ones_like(ids, dtype=torch.bool))
    mask[-1] = True
    words = marked_words(tokenizer, ids, mask)
    assert "".join(word for word, _ in words) == "USER:\nWhich bicycle's 日本? ASSISTANT:"
    assert [word.strip() for word, votes in words if votes][:4] == ["Which", "bicycle's", "日本", "?"]
    assert words[-1] == (":", True)
    assert words[0] == ("USER", False)
    assert marked_words(tokenizer, ids[:0], mask[:0]) == []


def test_words_of_a_prompt_and_their_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    """In order and without the role names; each word's tokens read as the word."""
    ids = ids_of(tokenizer, "USER: What is unquestionable? ASSISTANT:")
    words = prompt_words(tokenizer, ids, torch.ones_like(ids, dtype=torch.bool))
    assert "".join(word.text for word in words) == "Whatisunquestionable?"
    for word in words:
        assert word.text in TokenReader(tokenizer).read(ids[list(word.columns)].tolist()).text
    assert prompt_words(tokenizer, ids, torch.zeros_like(ids, dtype=torch.bool)) == []
