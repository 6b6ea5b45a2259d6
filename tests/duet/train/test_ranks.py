"""Processes that train together: sizes of partitioned weights, and what one process alone does."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from duet.train.freeze import freeze
from duet.train.ranks import agree, is_partitioned, size_of, start_communication, total, whole


def partitioned() -> nn.Module:
    """What ZeRO-3 leaves of a linear layer."""
    model = nn.Sequential(nn.Linear(4, 3, bias=False))
    model[0].weight.ds_numel, model[0].weight.ds_id = 12, 0
    model[0].weight.data = torch.empty(0)
    return model


def test_a_partitioned_weight_counts_whole() -> None:
    """`freeze` once stopped such a model with "nothing is left to train"."""
    model = partitioned()
    assert size_of(model[0].weight) == 12
    assert freeze(model) == 12
    assert is_partitioned(model) and not is_partitioned(nn.Linear(2, 2))


def test_one_process_agrees_with_itself() -> None:
    assert agree([1, 0, 3]) == [1, 0, 3]
    assert total([1, 0, 3]) == [1, 0, 3]
    with whole([nn.Parameter(torch.ones(2))]):
        pass


@pytest.mark.parametrize("section", [None, "text", {}, {"deepspeed": None}])
def test_communication_is_started_for_deepspeed_only(section: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("duet.train.ranks.find_spec", lambda name: pytest.fail(f"looked for {name}"))
    start_communication(section)
