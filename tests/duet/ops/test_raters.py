"""Text raters against plain Python; the released numbers are in `tests/duet/baselines/test_table_golden.py`."""

from __future__ import annotations

import torch
from torch import Tensor

from duet.ops.raters import raters


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_raters_are_above_the_mean_of_their_own_row():
    """Padding on either side changes nothing."""
    visual, text = noise(2, 9, 4), noise(2, 6, 4, seed=1)
    chosen = raters(visual=visual, text=text)
    for row in range(2):
        seen = (visual[row] @ text[row].T).softmax(-1).mean(0)
        assert chosen[row].tolist() == [value > seen.mean() for value in seen]
    padded = raters(
        visual=torch.cat([visual, noise(2, 3, 4, seed=2)], 1),
        text=torch.cat([noise(2, 2, 4, seed=3), text], 1),
        visual_valid=torch.arange(12).expand(2, -1) < 9,
        text_valid=torch.arange(8).expand(2, -1) >= 2,
    )
    assert padded[:, 2:].equal(chosen) and not padded[:, :2].any()


def test_one_text_token_rates_alone():
    assert raters(visual=noise(1, 4, 3), text=noise(1, 1, 3)).tolist() == [[True]]
