"""SparseVLM's votes, its splits of a count, and its recycling, against plain Python."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from duet.baselines import sparsevlm
from tests.duet.baselines.plain_rules import plain_recycle


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_padded_raters_have_no_vote():
    attention = noise(2, 3, 4, 5).abs()
    real = torch.tensor([[True, True, False, False], [True] * 4])
    scores = sparsevlm.rate(attention, real)
    torch.testing.assert_close(scores[0], attention[0, :, :2].mean((0, 1)))
    torch.testing.assert_close(scores[1], attention[1].mean((0, 1)))


def test_priority_heads_are_each_row_s_own():
    attention = noise(2, 4, 3, 5).abs()
    scores = sparsevlm.rate(attention, heads=2)
    for row in range(2):
        best = attention[row].sum((1, 2)).topk(2).indices
        torch.testing.assert_close(scores[row], attention[row, best].mean((0, 1)))


def test_gravity_is_what_position_alone_gives():
    """The sum of 2 cos(theta (m - n)) / sqrt(d) over the frequencies."""
    theta = torch.tensor([1.0, 0.1], dtype=torch.float64)
    places = torch.arange(7, dtype=torch.float64)[None]
    angles = torch.cat([places[..., None] * theta] * 2, -1)
    rope = angles.cos(), angles.sin()
    weight = sparsevlm.gravity(rope, rope)[0]
    distance = places.T - places
    expected = sum(2 * (distance * frequency).cos() for frequency in theta) / 4**0.5
    torch.testing.assert_close(weight, expected)


#: The released lists: tokens before, kept, merged.
RELEASED = [
    (576, 300, 9), (309, 200, 4), (204, 110, 3), (576, 303, 9), (312, 110, 7), (117, 36, 3), (576, 66, 16), (82, 30, 2),
    (32, 17, 1),
]  # fmt: skip


@pytest.mark.parametrize(("tokens", "kept", "made"), RELEASED)
def test_a_released_total_is_split_as_released(tokens, kept, made):
    stays, merged = sparsevlm.split_counts(torch.tensor([kept + made]), torch.tensor([tokens]), most=600)
    assert (stays.tolist(), merged.tolist()) == ([kept], [made])


def test_every_total_is_reached():
    tokens = 60
    totals = torch.arange(tokens + 1)
    stays, made = sparsevlm.split_counts(totals, torch.full_like(totals, tokens), most=tokens)
    assert (stays + made).equal(totals)
    assert (stays >= made).all() and (made >= 0).all()
    dropped = tokens - stays
    assert (made <= sparsevlm.pool_size(dropped)).all()
    assert made[-1] == 0
    released = made == sparsevlm.merged_count(dropped)
    assert released[12:-1].all()


@pytest.mark.parametrize("keep", [0, 1, 60, 90, 119])
def test_recycling(keep):
    x, scores = noise(2, 120, 6), noise(2, 120, seed=1)
    merged = sparsevlm.recycle(hidden=x, scores=scores, keep=keep)
    for row in range(2):
        torch.testing.assert_close(merged[row], plain_recycle(x[row], scores[row], keep))


def test_rows_of_other_sizes_recycle_as_if_alone():
    """Counts and padding differ; the second row drops nothing, so nothing is made."""
    x, scores = noise(3, 120, 6), noise(3, 120, seed=1)
    real = torch.arange(120) < torch.tensor([120, 70, 90])[:, None]
    kept, made = torch.tensor([40, 70, 30]), torch.tensor([3, 0, 2])
    together = sparsevlm.clusters(hidden=x, scores=scores, real=real, kept=kept, made=made, most=(30, 4))
    assert together.made.sum(-1).tolist() == made.tolist()
    assert together.real.sum(-1).tolist() == [25, 0, 19]
    for row, (tokens, stays, count) in enumerate([(120, 40, 3), (70, 70, 0), (90, 30, 2)]):
        if not count:
            continue
        expected = plain_recycle(x[row, :tokens], scores[row, :tokens], stays)
        inside = together.real[row]
        pool, target, weight = together.pool[row][inside], together.target[row][inside], together.weight[row][inside]
        merged = torch.zeros(count, 6, dtype=x.dtype).index_add(0, target, x[row, pool] * weight[:, None])
        torch.testing.assert_close(merged, expected)
        assert set(together.centres[row, :count].tolist()) <= set(pool.tolist())


def test_equal_tokens_and_zero_vectors():
    """All densities are the same: the better rated ones are the centres, and every token has one."""
    x, scores = torch.zeros(1, 80, 4), -torch.arange(80.0)[None]
    merged = sparsevlm.clusters(
        hidden=x,
        scores=scores,
        real=torch.ones(1, 80, dtype=torch.bool),
        kept=torch.tensor([10]),
        made=torch.tensor([3]),
        most=(22, 3),
    )
    assert merged.centres.tolist() == [[10, 11, 12]]
    assert merged.target[0, :3].tolist() == [0, 1, 2]
    assert sparsevlm.recycle(hidden=x, scores=scores, keep=10).shape == (1, 3, 4)
