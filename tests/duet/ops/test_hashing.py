"""`set_order` against Python's own sets."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from duet.ops.hashing import set_order

columns = st.one_of(
    st.integers(0, 40), st.integers(0, 1000), st.integers(0, 2**20 - 1), st.integers(0, 200).map(lambda n: 32 * n + 5)
)
rows = st.lists(columns, min_size=1, max_size=12, unique=True)


@given(st.lists(rows, min_size=1, max_size=4))
def test_a_batch_is_visited_as_python_visits_sets(batch):
    width = max(map(len, batch))
    numbers = torch.zeros(len(batch), width, dtype=torch.long)
    real = torch.zeros(len(batch), width, dtype=torch.bool)
    for number, row in enumerate(batch):
        numbers[number, : len(row)] = torch.tensor(row)
        real[number, : len(row)] = True
    order = set_order(numbers, real)
    for number, row in enumerate(batch):
        assert numbers[number][order[number]][: len(row)].tolist() == list(set(row))
        assert order[number].sort().values.tolist() == list(range(width))


@pytest.mark.parametrize("size", [1, 4, 5, 6])
def test_numbers_that_want_the_same_slot(size):
    row = [31 + 32 * n for n in range(size)]
    order = set_order(torch.tensor([row]), torch.ones(1, size, dtype=torch.bool))
    assert [row[place] for place in order[0]] == list(set(row))
