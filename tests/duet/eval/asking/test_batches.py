"""Batches depend on lengths alone; every question is in exactly one batch, for any number of processes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from duet.data.collate import collate
from duet.errors import UserError
from duet.eval.asking.batches import plan, share

SIZES = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 50)), max_size=40)


@given(SIZES, st.integers(1, 7), st.integers(1, 4))
def test_every_question_once_and_alike_ones_together(sizes, batch_size, processes):
    batches = plan(sizes, batch_size)
    assert sorted(number for batch in batches for number in batch) == list(range(len(sizes)))
    for batch in batches:
        assert len(batch) <= batch_size
        assert len({sizes[number][0] for number in batch}) == 1
        lengths = [sizes[number][1] for number in batch]
        assert lengths == sorted(lengths, reverse=True)
    shared = [item for process in range(processes) for item in share(batches, process, processes)]
    assert sorted(shared) == list(enumerate(batches))


def test_longest_first():
    assert plan([(1, 3), (1, 9), (1, 5)], 2) == [[1, 2], [0]]


def test_questions_about_the_same_pictures_follow_each_other():
    sizes = [(1, 3), (1, 9), (1, 5), (1, 7)]
    assert plan(sizes, 2, ["b", "a", "b", "a"]) == [[1, 3], [2, 0]]
    assert plan(sizes, 2, [("b",), ("a",), ("b",), ("c",)]) == [[1, 3], [2, 0]]
    assert plan(sizes, 3, [None] * 4) == plan(sizes, 3) == [[1, 3, 2], [0]]


def test_batch_size_must_be_positive():
    with pytest.raises(UserError, match="batch size 0"):
        plan([(1, 3)], 0)


def test_collate_pads_left_and_concatenates_pictures():
    row = {"input_ids": torch.tensor([[5, 6]]), "attention_mask": torch.ones(1, 2, dtype=torch.long)}
    longer = {"input_ids": torch.tensor([[7, 8, 9]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}
    batch = collate([{**row, "pixel_values": torch.ones(1, 3, 2, 2)}, longer], pad_token_id=1)
    assert batch["input_ids"].tolist() == [[1, 5, 6], [7, 8, 9]]
    assert batch["attention_mask"].tolist() == [[0, 1, 1], [1, 1, 1]]
    assert batch["pixel_values"].shape == (1, 3, 2, 2)


def test_collate_fills_up_token_types_and_crops():
    """Qwen's types of tokens are per token; pictures of LLaVA-NeXT have crops of their own number."""
    rows = [
        {"input_ids": torch.ones(1, size), "mm_token_type_ids": torch.ones(1, size), "pixel_values": crops}
        for size, crops in ((2, torch.ones(1, 3, 3, 2, 2)), (3, torch.ones(2, 5, 3, 2, 2)))
    ]
    batch = collate(rows, pad_token_id=9)
    assert batch["mm_token_type_ids"].tolist() == [[0, 1, 1], [1, 1, 1]]
    assert batch["pixel_values"].shape == (3, 5, 3, 2, 2)
    assert batch["pixel_values"].sum((2, 3, 4)).tolist() == [[12, 12, 12, 0, 0], [12] * 5, [12] * 5]
