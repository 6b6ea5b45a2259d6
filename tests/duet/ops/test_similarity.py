"""Cosines in full precision."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cosine_similarity

from duet.ops.similarity import cosines, exact


def test_cosines_of_all_pairs():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(2, count, 5, generator=generator) for count in (4, 3))
    a[0, 1] = 0
    torch.testing.assert_close(cosines(a, b), cosine_similarity(a[:, :, None], b[:, None], dim=-1))
    torch.testing.assert_close(cosines(a), cosines(a, a))
    assert (cosines(a)[0, 1] == 0).all()


@pytest.mark.parametrize(
    ("given", "wide"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_half_precision_becomes_float32(given, wide):
    assert exact(torch.ones(1, dtype=given)).dtype == wide
    assert cosines(torch.ones(1, 1, 1, dtype=given)).dtype == wide
