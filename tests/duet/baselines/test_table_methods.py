"""`select` of the paper's baselines: against plain Python, and what holds for each of them."""

from __future__ import annotations

import pytest
import torch

from duet.baselines import dart
from tests.duet.baselines.plain_rules import RULES, START, inputs

COUNTS = (1, 3, 7, 19, 20)


@pytest.mark.parametrize("keep", COUNTS)
@pytest.mark.parametrize("name", RULES)
def test_the_plain_rule_says_the_same(name, keep):
    select, plain = RULES[name]
    x = inputs(batch=3).to(torch.float64)
    got = select(x, keep)
    assert got.shape == (3, keep)
    assert got.tolist() == [plain(x.row(number), keep) for number in range(3)]


@pytest.mark.parametrize("name", RULES)
def test_a_row_alone_equals_the_row_in_a_batch(name):
    select, _ = RULES[name]
    x = inputs(batch=3, seed=1)
    for keep in COUNTS:
        together = select(x, keep)
        for number in range(3):
            assert select(x.row(number), keep).equal(together[number : number + 1])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", RULES)
def test_precision_decides_nothing_here(name, dtype):
    """The numbers of the coarse grid are exact in every format."""
    select, _ = RULES[name]
    x = inputs(seed=2)
    for keep in COUNTS:
        assert select(x.to(dtype), keep).equal(select(x, keep))


@pytest.mark.parametrize("name", RULES)
def test_equal_tokens_are_taken_from_the_front(name):
    """Where all tokens are the same, the first ones stay; DART and PruMerge+ spread theirs by rules of their own."""
    select, plain = RULES[name]
    x = inputs(batch=1)
    for value in vars(x).values():
        value.fill_(0.5)
    for keep in COUNTS:
        kept = select(x, keep)[0].tolist()
        assert kept == plain(x, keep)
        assert kept == sorted(set(kept))
        if name != "prumerge_plus":
            assert kept == list(range(keep))


@pytest.mark.parametrize("name", RULES)
def test_zero_vectors_and_one_token(name):
    select, _ = RULES[name]
    x = inputs(batch=2, tokens=1)
    assert select(x, 1).tolist() == [[0], [0]]
    x = inputs(batch=2)
    for value in vars(x).values():
        value.zero_()
    assert [len(set(row)) for row in select(x, 8).tolist()] == [8, 8]


def test_pivots_of_a_padded_row_are_those_of_the_row_alone():
    """Columns count from the row's first token, and padding is no pivot, however long its keys."""
    x = inputs(batch=1, seed=3)
    alone = dart.select(keep=9, keys=x.keys, hidden=x.hidden, image_start=START, image_tokens=20)
    length, padding = x.hidden.shape[1], 4
    norms = torch.cat([torch.full((1, padding), 99.0), dart.key_norms(x.keys)], 1)
    hidden = torch.cat([torch.ones(1, padding, x.hidden.shape[2]), x.hidden], 1)
    columns = (torch.arange(length + padding) - padding).clamp_min(0)[None]
    visual = (columns >= START) & (columns < START + 20) & (torch.arange(length + padding) >= padding)
    kept = dart.choose(
        norms=norms,
        hidden=hidden,
        columns=columns,
        visual=visual,
        text=columns >= START + 20,
        counts=torch.tensor([9]),
    )
    assert (kept[0].nonzero()[:, 0] - padding - START).tolist() == alone[0].tolist()


def test_rows_of_different_counts_and_texts():
    """Each row has its own number of tokens that stay, and of text tokens that may be pivots."""
    x = inputs(batch=3, seed=4)
    columns = torch.arange(x.hidden.shape[1]).expand(3, -1)
    visual = (columns >= START) & (columns < START + 20)
    ends = torch.tensor([START + 21, START + 23, START + 26])
    text = (columns >= START + 20) & (columns < ends[:, None])
    counts = torch.tensor([2, 11, 20])
    parts = {
        "norms": dart.key_norms(x.keys),
        "hidden": x.hidden,
        "columns": columns,
        "visual": visual,
        "text": text,
        "counts": counts,
    }
    together = dart.choose(**parts)
    assert together.sum(-1).tolist() == [2, 11, 20]
    for number in range(3):
        alone = dart.choose(**{name: part[number : number + 1] for name, part in parts.items()})
        assert alone.equal(together[number : number + 1])
