"""What is HoloV's own: quotas."""

from __future__ import annotations

import pytest
import torch

from duet.baselines.holov import _strip_scores, select


def test_every_strip_has_its_share():
    attention = torch.tensor([0.1, 0.3, 0.2, 0.4]).repeat(1, 16)
    projected = torch.randn(1, 4, 5, generator=torch.Generator().manual_seed(0)).repeat(1, 16, 1)
    kept = select(keep=32, projected=projected, cls_attention=attention)[0]
    assert kept.tolist() == [strip * 4 + place for strip in range(16) for place in (1, 3)]


def test_the_places_of_a_full_strip_go_to_the_most_attended_others():
    """The released code fills them with zero vectors."""
    attention = torch.full((1, 64), 1e-4)
    attention[0, 8:12] = 1.0
    attention[0, [3, 40, 41]] = torch.tensor([3e-4, 4e-4, 2e-4])
    projected = torch.randn(1, 64, 5, generator=torch.Generator().manual_seed(0))
    kept = select(keep=7, projected=projected, cls_attention=attention)[0]
    assert kept.tolist() == [3, 8, 9, 10, 11, 40, 41]


def test_small_pictures_have_fewer_strips():
    attention = torch.rand(2, 9, generator=torch.Generator().manual_seed(0))
    projected = torch.randn(2, 9, 5, generator=torch.Generator().manual_seed(0))
    assert select(keep=4, projected=projected, cls_attention=attention).tolist() == [
        sorted(row.topk(4).indices.tolist()) for row in attention
    ]


def test_variance_counts_the_diagonal_as_0():
    """Patches at right angles have no variance then, and others add 0.09 of their attention, however alike they are."""
    attention, real = torch.tensor([[[0.1, 0.3]]]), torch.tensor([[True, True]])
    angles, alike = torch.eye(2)[None, None], torch.ones(1, 1, 2, 2)
    assert _strip_scores(angles, attention, real, 0.09).item() == pytest.approx(200)
    assert _strip_scores(alike, attention, real, 0.09).item() == pytest.approx(200 * 1.09, rel=1e-5)
    assert _strip_scores(alike, attention, torch.tensor([[True, False]]), 0.09).item() == pytest.approx(100)
