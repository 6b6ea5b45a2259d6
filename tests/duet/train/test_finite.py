"""A loss or gradient that is not finite stops the run and is named."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from duet.train.finite import DivergedError, FiniteCheck


def check(model: nn.Module) -> FiniteCheck:
    return FiniteCheck(model, 0, 1, torch.device("cpu"), lambda rank, micro: [f"rank {rank}, micro-batch {micro}"])


def test_a_finite_step_passes() -> None:
    model = nn.Linear(2, 2)
    check(model).loss(torch.tensor(1.0), 1, 0)
    model(torch.ones(1, 2)).sum().backward()
    check(model).gradients(1)


def test_a_loss_is_named_with_its_rows_and_the_weights() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with pytest.raises(DivergedError, match=r"step 4: the loss .* rows: rank 0, micro-batch 3; the weights are finite"):
        check(model).loss(torch.tensor(float("nan")), 4, 3)
    model[1].bias.data[0] = float("inf")
    with pytest.raises(DivergedError, match=r"these weights are not finite: 1\.bias"):
        check(model).loss(torch.tensor(float("nan")), 4, 3)


@pytest.mark.parametrize("watched", [True, False])
def test_a_gradient_is_named(watched: bool) -> None:
    """Both from `.grad`, and as it is computed, for engines that do not keep it."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2))
    found = check(model)
    if watched:
        found.watch()
    out = model(torch.ones(1, 2))
    (out * torch.tensor([1.0, float("inf")])).sum().backward()
    with pytest.raises(DivergedError, match=r"step 2: gradients of 3 parameters are not finite: 0\.weight, 1\.weight"):
        found.watched(2) if watched else found.gradients(2)
    if watched:
        found.watched(3)  # the next step starts anew
