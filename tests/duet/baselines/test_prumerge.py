"""PruMerge's merging against plain Python, and the counts that it finds itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from duet.baselines import prumerge, prumerge_plus
from tests.duet.baselines.plain_rules import plain_merge


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("tokens", "keep"), [(50, 7), (50, 50), (20, 3), (2, 1), (1, 1)])
def test_merging(tokens, keep):
    """With fewer than 33 patches all others are neighbours; with none left the extra token is zero."""
    x, keys, attention = draw(2, tokens, 4), draw(2, tokens, 5, seed=1), draw(2, tokens, seed=2).softmax(-1)
    kept = prumerge.select(keep=keep, cls_attention=attention)
    merged = prumerge.merge(features=x, keys=keys, cls_attention=attention, kept=kept)
    for row in range(2):
        expected = plain_merge(x[row], keys[row], attention[row], kept[row].tolist())
        torch.testing.assert_close(merged[row], expected)
    alone = prumerge.merge(features=x[1:], keys=keys[1:], cls_attention=attention[1:], kept=kept[1:])
    torch.testing.assert_close(alone, merged[1:])


def test_outliers_are_counted_per_row():
    attention = torch.full((2, 40), 0.01)
    attention[0, [3, 9]] = 0.2
    attention[1, :5] = 0.1
    assert prumerge.adaptive_count(attention).tolist() == [2, 5]


def test_the_adaptive_grid():
    """5 of 40 are outliers: also every `int(8 / 3)`-th other patch, never the last one."""
    attention = torch.full((1, 41), 0.01)
    attention[0, [1, 3, 5, 7, 40]] = 0.1
    kept = prumerge_plus.adaptive_select(attention)[0].nonzero()[:, 0].tolist()
    assert kept == sorted({1, 3, 5, 7, 40} | set(range(0, 40, 2)))


def test_no_outliers_or_too_many():
    assert prumerge_plus.adaptive_select(torch.ones(1, 30))[0].nonzero()[:, 0].tolist() == [0, 10, 20]
    attention = torch.zeros(1, 30)
    attention[0, :7] = torch.arange(1.0, 8.0)
    assert prumerge_plus.adaptive_select(attention)[0].sum() >= 7


@pytest.mark.parametrize("keep", [1, 2, 9, 29, 30])
def test_released_order(keep):
    """Attention first, best one first; then the grid from top to bottom."""
    attention = draw(2, 30)
    order = prumerge_plus.ordered(keep=keep, cls_attention=attention)
    assert order.sort(dim=-1).values.equal(prumerge_plus.select(keep=keep, cls_attention=attention))
    for row in range(2):
        tokens, scores = order[row].tolist(), attention[row].tolist()
        grid = {(2 * number + 1) * 30 // (2 * (keep // 2)) for number in range(keep // 2)}
        first = next(
            (at for at in range(keep) if tokens[at:] == sorted(tokens[at:]) and set(tokens[at:]) <= grid), keep
        )
        head = [scores[token] for token in tokens[:first]]
        assert head == sorted(head, reverse=True)
        assert len(tokens[first:]) <= keep // 2
