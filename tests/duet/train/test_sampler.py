"""The order of rows: LLaVA's orders, number for number, and what a resumed or another run may rely on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from duet.data.rows import Row
from duet.train.sampler import RowOrder, modality_order, signed_length

GOLDEN = Path(__file__).parents[2] / "golden" / "training" / "sampler.json"
CASES = [case for case in json.loads(GOLDEN.read_text()) if "torch_seed" in case and "order" in case]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['case']}-{case['torch_seed']}-{case['generator']}")
def test_llava_s_orders(case: dict) -> None:
    generator = torch.Generator().manual_seed(case["torch_seed"])
    last = None if case["generator"] is None else torch.Generator().manual_seed(case["generator"])
    order = modality_order(case["lengths"], case["batch_size"], case["world_size"], generator, last)
    assert order == case["order"]


@pytest.mark.parametrize("lengths", [None, [5, -3, 7, 9, -2, 4, -8, 6, 1, 2, -9]])
def test_seed_and_epoch_make_the_order(lengths: list[int] | None) -> None:
    order = RowOrder(11, 3, lengths, batch_size=2)
    first = list(order)
    assert sorted(first) == list(range(11))
    assert list(RowOrder(11, 3, lengths, batch_size=2)) == first
    assert list(RowOrder(11, 4, lengths, batch_size=2)) != first
    order.set_epoch(1)
    assert list(order) != first


def test_rows_of_a_step_are_those_of_any_number_of_processes() -> None:
    """Two processes, or one that accumulates twice: the same micro-batches. The last step is filled up."""
    lengths = [(place * 7) % 13 + 1 for place in range(10)]
    order = RowOrder(10, 0, lengths, batch_size=2, shares=2)
    steps = [order.rows_of_step(0, step) for step in range(3)]
    flat = [row for step in steps for batch in step for row in batch]
    assert flat[:10] == list(order) and flat[10:] == flat[:2]
    assert all(len(batch) == 2 for step in steps for batch in step)


def test_a_length_is_the_words_of_all_messages() -> None:
    turns = (("<image>\nHow many?", "Two of them"), ("Sure?", "Yes"))
    assert signed_length(Row("a", ("a.png",), turns)) == 8
    assert signed_length(Row("a", (), turns)) == -8
