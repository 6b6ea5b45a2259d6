"""Edits that average groups."""

from __future__ import annotations

import torch

from duet.ops.groups import mean_of_groups, rest_of


def test_the_rest_is_ascending():
    assert rest_of(torch.tensor([[1, 3], [0, 4]]), 5).tolist() == [[0, 2, 4], [1, 2, 3]]
    assert rest_of(torch.tensor([[0, 1]]), 2).shape == (1, 0)


def test_every_kept_token_becomes_the_mean_of_its_group():
    x = torch.tensor([[[1.0], [2.0], [4.0], [8.0], [16.0]]])
    kept, others = torch.tensor([[1, 3]]), torch.tensor([[0, 2, 4]])
    edit = mean_of_groups(kept, others, torch.tensor([[1, 1, 1]]), projected=True)
    torch.testing.assert_close(edit.apply(x), torch.tensor([[[2.0], [29 / 4]]]))
    assert edit.assign.tolist() == [[1, 0, 1, 1, 1]]
    assert edit.projected and edit.contextual == 2


def test_without_others_nothing_changes():
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    kept = torch.arange(3).expand(2, -1)
    none = torch.zeros(2, 0, dtype=torch.long)
    assert mean_of_groups(kept, none, none).apply(x).equal(x)
