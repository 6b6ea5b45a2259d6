"""Moving tokens: against loops over rows and columns."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from duet.ops.gather import close_gaps, compact_positions, take
from tests.drawing import normals

masks = (
    st.integers(1, 9)
    .flatmap(lambda width: st.lists(st.lists(st.booleans(), min_size=width, max_size=width), min_size=1, max_size=3))
    .map(torch.tensor)
)


@given(normals((1, 3), (1, 7), (1, 4)), st.integers(0, 9), st.randoms(use_true_random=False))
def test_take_picks_rows(x, count, random):
    index = torch.tensor([[random.randrange(x.shape[1]) for _ in range(count)] for _ in x], dtype=torch.long)
    taken = take(x, index)
    assert taken.shape == (len(x), count, x.shape[2])
    for b, row in enumerate(index.tolist()):
        for place, number in enumerate(row):
            assert torch.equal(taken[b, place], x[b, number])


def test_take_works_on_any_number_of_axes():
    x = torch.arange(2 * 3 * 2 * 2).view(2, 3, 2, 2)
    index = torch.tensor([[2, 0], [1, 1]])
    assert torch.equal(take(x, index), torch.stack([x[0, [2, 0]], x[1, [1, 1]]]))
    assert take(x[..., 0, 0], index).tolist() == [x[0, [2, 0], 0, 0].tolist(), x[1, [1, 1], 0, 0].tolist()]


def test_take_is_differentiable():
    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    index = torch.tensor([[4, 0, 0], [1, 2, 3]])
    assert torch.autograd.gradcheck(lambda values: take(values, index), x)


@given(masks, st.booleans())
def test_close_gaps_keeps_order_and_pads_one_side(keep, left):
    longest = int(keep.sum(1).max())
    index, valid = close_gaps(keep, longest, left)
    for b, row in enumerate(keep.tolist()):
        wanted = [column for column, kept in enumerate(row) if kept]
        padding = [False] * (longest - len(wanted))
        assert index[b][valid[b]].tolist() == wanted
        assert valid[b].tolist() == (padding + [True] * len(wanted) if left else [True] * len(wanted) + padding)


@given(masks)
def test_compact_positions_count_valid_tokens(valid):
    positions = compact_positions(valid)
    for row, numbers in zip(valid.tolist(), positions.tolist(), strict=True):
        assert [number for real, number in zip(row, numbers, strict=True) if real] == list(range(sum(row)))
        assert min(numbers) >= 0
