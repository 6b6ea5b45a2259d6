"""Which answers depend on tied logits: up to and with the token that ends them, and not in what pads them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from duet.eval.asking.answerer import Answerer

END, WIDE, CLOSE = 9, 5.0, 1e-4


def ties(tokens: list[list[int]], gaps: list[list[float]], dtype: torch.dtype = torch.float32, ends: Any = END) -> list:
    """Rows that hang on a tie; gaps between the two best logits, row by row."""
    model = SimpleNamespace(dtype=dtype, generation_config=SimpleNamespace(eos_token_id=ends))
    answerer = Answerer.__new__(Answerer)
    answerer.model = model
    margins: Any = SimpleNamespace(steps=list(torch.tensor(gaps).unbind(1)))
    return answerer._ties(torch.tensor(tokens), margins)


@pytest.mark.parametrize("ends", [END, [END, 8]])
def test_the_end_token_counts_and_what_follows_does_not(ends):
    rows = [[3, END, END, END]] * 4 + [[3, 4, 5, 6]]
    gaps = [
        [WIDE, CLOSE, WIDE, WIDE],  # whether it ends here or goes on hangs on a tie
        [WIDE, WIDE, CLOSE, CLOSE],  # padding
        [CLOSE, WIDE, WIDE, WIDE],
        [WIDE, WIDE, WIDE, WIDE],
        [WIDE, WIDE, WIDE, CLOSE],  # cut off before it ended
    ]
    assert ties(rows, gaps, ends=ends) == [True, False, True, False, True]


def test_half_precision_is_coarser():
    row, gap = [[3, 4]], [[WIDE, 0.05]]
    assert ties(row, gap) == [False]
    assert ties(row, gap, torch.bfloat16) == ties(row, gap, torch.float16) == [True]
    assert ties(row, [[WIDE, 1e-4]], torch.float64) == [False]
