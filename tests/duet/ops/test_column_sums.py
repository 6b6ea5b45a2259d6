"""The Triton kernels for column sums equal the reference, in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

SHAPES = ((1, 2, 37, 8, 16), (2, 1, 16, 20, 16), (1, 1, 5, 16, 32))
#: In a process of its own: Triton decides when it is imported whether it interprets.
PROGRAM = f"""
import torch
from duet.ops.scores import received_attention
from duet.ops.triton.column_sums import column_sums
torch.manual_seed(0)
for *shape, block in {SHAPES}:
    q, k = 3 * torch.randn(shape), 3 * torch.randn(shape)
    found, scale = column_sums(q, k, shape[-1] ** -0.5, block), shape[-1] ** -0.5
    assert found.shape == (shape[0], shape[2])
    torch.testing.assert_close(found, received_attention(q, k, scale), rtol=1e-5, atol=1e-5)
"""


@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
def test_the_kernels_equal_the_reference() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
