"""PyramidDrop: the last prompt token alone votes."""

from __future__ import annotations

import pytest
import torch

from duet.pyramiddrop.pyramiddrop import PyramidDrop
from tests.duet.pyramiddrop.views import make_view, mean_of


@pytest.mark.parametrize("seed", range(3))
def test_the_last_token_votes(seed):
    view, maps = make_view(seed)
    scores, voters = PyramidDrop().score(view)
    assert torch.equal(voters, view.last)
    torch.testing.assert_close(scores, torch.stack([mean_of(maps, 0, [8]), mean_of(maps, 1, [6])]))
    assert not PyramidDrop().needs
