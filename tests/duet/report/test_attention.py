"""From attention over a prompt to maps over patches, and which words are shown."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from duet.engine.trace import Trace
from duet.errors import UserError
from duet.report.attention import Looker, attention_maps, check_words, find_lookers
from duet.text.salient import salient_finder
from playground.mini.tokenizer import train_tokenizer

QUESTION = "Is the red ring left of the red circle?"


@cache
def tokenizer() -> Any:
    return train_tokenizer([QUESTION, "What color is the ring?", "red", "left", "circle"] * 30)


def prompt() -> tuple[Tensor, Tensor]:
    """Three tokens in front of the text, and which tokens are text."""
    words = tokenizer()(f"USER: {QUESTION} ASSISTANT:", add_special_tokens=False).input_ids
    ids = torch.tensor([1, 1, 1, *words])
    return ids, torch.arange(len(ids)) >= 3


def lookers(words: list[str] | None) -> list[Looker]:
    ids, text = prompt()
    return find_lookers(tokenizer(), ids, text, salient_finder(tokenizer()), words)


def trace(columns: list[int], origins: list[tuple[int, int]]) -> Trace:
    made = Trace()
    made.columns, made.origins = [torch.tensor(columns)], [torch.tensor(origins)]
    return made


def test_maps_lie_on_the_patches_of_their_units() -> None:
    """Two units whose tokens are interleaved, a separator between them (column 4), and CLS of the second unit."""
    made = trace([1, 2, 3, 5, 6], [(0, 1), (1, -1), (1, 0), (0, 0), (1, 2)])
    rows = torch.tensor([[0.1, 0.2, 0.05, 0.3, 0.0, 0.15, 0.2], [0.1, 0.4, 0.15, 0.1, 0.0, 0.05, 0.2]])
    word, both = Looker("word", (8,)), Looker("both", (7, 8))
    ((one, two),) = attention_maps(made, [2, 3], {4: rows}, [7, 8], [word, both])
    assert (one.layer, one.looker) == (4, word)
    np.testing.assert_allclose(one.units[0], [0.05, 0.4], rtol=1e-6)
    np.testing.assert_allclose(one.units[1], [0.1, np.nan, 0.2], rtol=1e-6)
    np.testing.assert_allclose(two.units[0], [0.1, 0.3], rtol=1e-6)


def test_layers_are_in_order() -> None:
    rows = {layer: torch.full((1, 3), 1 / 3) for layer in (7, 2, 5)}
    maps = attention_maps(trace([0], [(0, 0)]), [1], rows, [2], [Looker("x", (2,))])
    assert [one.layer for (one,) in maps] == [2, 5, 7]


def test_salient_words_and_the_last_token() -> None:
    ids, _ = prompt()
    found = lookers([])
    assert [one.label for one in found[:-1]] == ["red", "ring", "left", "red", "circle", "?"]
    assert found[-1] == Looker("last token", (len(ids) - 1,))
    for one in found[:-1]:
        assert one.label in tokenizer().decode(ids[list(one.columns)])


def test_named_words_in_any_case_and_number() -> None:
    assert [one.label for one in lookers(["RED", "of"])] == ["red", "of", "red"]


def test_groups_are_what_methods_let_vote() -> None:
    """The last token, the salient ones and the last, all text with the role names."""
    ids, text = prompt()
    last, salient, everything = lookers(None)
    votes = salient_finder(tokenizer())(ids, text)
    assert last.columns == (len(ids) - 1,)
    assert salient.columns == (*votes.nonzero().flatten().tolist(), len(ids) - 1)
    assert everything.columns == tuple(range(3, len(ids)))


def test_unknown_words() -> None:
    with pytest.raises(UserError, match=r"--words ball: no such word.*Is, the, red, ring, left, of, circle, \?"):
        lookers(["red", "ball"])
    check_words(["Ring"], ["the", "ring"])
