"""Hypothesis strategies that several test files share: small batches of odd sizes, in float64."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor


@st.composite
def batches(draw: st.DrawFn, values: st.SearchStrategy[float], least: int = 1) -> Tensor:
    """`[B, N]` float64, B in 1..3, N in least..9."""
    rows, width = draw(st.integers(1, 3)), draw(st.integers(least, 9))
    flat = draw(st.lists(values, min_size=rows * width, max_size=rows * width))
    return torch.tensor(flat, dtype=torch.float64).view(rows, width)


@st.composite
def normals(draw: st.DrawFn, *sizes: int | tuple[int, int]) -> Tensor:
    """Normal float64 numbers; a size is a number or a range `(least, most)`."""
    shape = [size if isinstance(size, int) else draw(st.integers(*size)) for size in sizes]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    return torch.randn(shape, generator=generator, dtype=torch.float64)
