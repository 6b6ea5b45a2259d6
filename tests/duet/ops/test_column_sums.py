"""The Triton kernels for column sums equal the reference, in Triton's interpreter and as code for real devices."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from duet.ops.scores import attention_probabilities, received_attention, received_by_segment

#: In processes of their own: Triton decides when it is imported whether it interprets.
RUN = """
import random, numpy, torch, triton.language as tl
from triton.runtime import interpreter
from duet.ops.scores import received_attention, received_by_segment
from duet.ops.triton.column_sums import column_sums, segment_sums

def widened(handle):  # the interpreter of Triton 3.9 multiplies the bits of bfloat16
    if handle.dtype.scalar != tl.bfloat16:
        return handle
    data = (handle.data.astype(numpy.uint32) << 16).view(numpy.float32)
    return interpreter.TensorHandle(data, tl.float32)

dot = interpreter.InterpreterBuilder.create_dot
interpreter.InterpreterBuilder.create_dot = lambda self, a, b, *rest: dot(self, widened(a), widened(b), *rest)
torch.manual_seed(0)
draw = random.Random(0)
near = {torch.float32: 1e-5, torch.float16: 2e-5, torch.bfloat16: 2e-5}
for width in (64, 72, 80, 128, 8, 20):
    for dtype in near:
        batch, heads, tokens = draw.randint(1, 3), draw.randint(1, 3), draw.randint(1, 40)
        q, k = (3 * torch.randn(2, batch, tokens, heads, width)).to(dtype).transpose(2, 3)
        scale = width ** -0.5
        tolerance = {"rtol": near[dtype], "atol": near[dtype]}
        wanted = received_attention(q.float(), k.float(), scale)
        found = column_sums(q, k, scale, block=16)
        assert found.shape == (batch, tokens) and found.dtype == torch.float32
        torch.testing.assert_close(found, wanted, **tolerance)
        lengths = [draw.randint(0, tokens) for _ in range(batch)]
        wanted = received_attention(q.float(), k.float(), scale, lengths=lengths)
        torch.testing.assert_close(column_sums(q, k, scale, lengths, block=16), wanted, **tolerance)
        lengths = [draw.randint(1, 50) for _ in range(draw.randint(1, 4))]
        q, k = (3 * torch.randn(2, sum(lengths), heads, width)).to(dtype)
        wanted = received_by_segment(q.float(), k.float(), scale, lengths)
        torch.testing.assert_close(segment_sums(q, k, scale, lengths, block=32), wanted, **tolerance)
"""
#: For an H200 and an MI325, without either: types, shapes and layouts that the devices' compilers take.
COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from duet.ops.triton import column_sums as kernels
for arch in (GPUTarget("cuda", 90, 32), GPUTarget("hip", "gfx942", 64)):
    for dtype in ("fp32", "bf16"):
        for width in (kernels.WIDEST,):
            for kernel, outputs in ((kernels._rows, ["lse"]), (kernels._columns, ["lse", "out"])):
                types = {"q": f"*{dtype}", "k": f"*{dtype}", "table": "*i64", "scale": "fp32"}
                types |= dict.fromkeys(outputs, "*fp32")
                types |= dict.fromkeys(("total", "width", "qh", "qt", "kh", "kt"), "i32")
                sizes = {"BLOCK": kernels.BLOCK, "WIDTH": width}
                types = {name: types.get(name, "constexpr") for name in kernel.arg_names}
                made = triton.compile(ASTSource(kernel, types, sizes), target=arch)
                shared, limit = made.metadata.shared, 227 * 1024 if arch.backend == "cuda" else 64 * 1024
                assert shared <= limit, (arch, dtype, width, shared)
                print(arch.backend, dtype, width, kernel.__name__, shared)
"""
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")


def python(program: str, **environment: str) -> None:
    surroundings = {**os.environ, **environment}
    done = subprocess.run(
        [sys.executable, "-c", program], env=surroundings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@needs_triton
def test_the_kernels_equal_the_reference() -> None:
    python(RUN, TRITON_INTERPRET="1")


@needs_triton
def test_the_kernels_compile_for_devices() -> None:
    python(COMPILE)


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4), heads=st.integers(1, 3), seed=st.integers(0, 99))
def test_segments_and_padding_are_rows_alone(lengths, heads, seed) -> None:
    torch.manual_seed(seed)
    parts = [[torch.randn(1, heads, length, 6) for length in lengths] for _ in range(2)]
    alone = [received_attention(q, k, 0.4)[0] for q, k in zip(*parts, strict=True)]
    packed = [torch.cat([one[0].transpose(0, 1) for one in each]) for each in parts]
    torch.testing.assert_close(received_by_segment(*packed, 0.4, lengths), torch.cat(alone))
    padded = [torch.full((len(lengths), heads, max(lengths), 6), float("nan")) for _ in range(2)]
    for whole, each in zip(padded, parts, strict=True):
        for row, one in enumerate(each):
            whole[row, :, : one.shape[2]] = one[0]
    found = received_attention(*padded, 0.4, lengths=lengths)
    for row, one in zip(found, alone, strict=True):
        torch.testing.assert_close(row[: len(one)], one)
        assert not row[len(one) :].any()


def test_sums_are_those_of_the_whole_map() -> None:
    q, k = torch.randn(2, 3, 11, 8), torch.randn(2, 3, 11, 8)
    whole = attention_probabilities(q, k, 0.3).mean(1).sum(1)
    torch.testing.assert_close(received_attention(q, k, 0.3, chunk=4), whole)
