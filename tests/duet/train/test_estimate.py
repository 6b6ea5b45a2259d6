"""Costs of a training against the figures of the paper's and the original's set-up (`docs/data.md`)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from duet.budget import find_backbone
from duet.eval.running.grid import find_budget
from duet.train.estimate import GIB, Plan, memory_of, row_flops, sizes_of, zero_of

LLAVA = find_backbone("llava15")
SIZES = sizes_of(LLAVA)
FINETUNE = Plan(
    SIZES,
    {part: size for part, size in SIZES.items() if part != "tower"},
    checkpointing=True,
    dtype="bfloat16",
    stage=2,
    gpus=8,
    batch=16,
)


def test_sizes_are_those_of_the_checkpoint() -> None:
    assert SIZES["decoder"] == pytest.approx(6.738e9, rel=1e-3)
    assert SIZES["tower"] == pytest.approx(303.5e6, rel=1e-2)
    assert SIZES["projector"] == pytest.approx(20.98e6, rel=1e-2)


@pytest.mark.parametrize(("text", "changes"), [(300, (-44, -51, -58)), (900, (-26, -31, -35))])
def test_what_compression_saves(text: int, changes: tuple[int, ...]) -> None:
    """By operations -44, -51, -58 % at 300 tokens besides the visual ones; the paper's numbers fit 900."""
    whole = row_flops(LLAVA, None, text, text // 2, (576,), FINETUNE)
    for name, change in zip(("llava15_192", "llava15_128", "llava15_64"), changes, strict=True):
        budget = find_budget(name, "duet", LLAVA)
        part = row_flops(LLAVA, budget, text, text // 2, (576,), FINETUNE)
        assert round(100 * (part / whole - 1)) == change


def test_passes_of_the_two_stages() -> None:
    whole = row_flops(LLAVA, None, 300, 150, (576,), FINETUNE)
    assert whole == pytest.approx(47.5e12, rel=0.03)
    assert row_flops(LLAVA, None, 300, 150, (576,), replace(FINETUNE, checkpointing=False)) < 0.8 * whole
    only = Plan(SIZES, {"projector": SIZES["projector"]}, checkpointing=True)
    captions = row_flops(LLAVA, None, 40, 20, (576,), only)
    assert captions == pytest.approx(0.75 * row_flops(LLAVA, None, 40, 20, (576,), FINETUNE), rel=0.02)


@pytest.mark.parametrize(("name", "more"), [("llava15_192", 46), ("llava15_128", 52), ("llava15_64", 61)])
def test_a_teacher_costs_a_forward_pass_with_all_tokens(name: str, more: int) -> None:
    """Percent of a compressed row's own operations (docs/training.md)."""
    budget = find_budget(name, "duet", LLAVA)
    own, taught = (row_flops(LLAVA, budget, 300, 150, (576,), replace(FINETUNE, taught=each)) for each in (False, True))
    assert round(100 * (taught / own - 1)) == more
    for other, pictures in ((None, (576,)), (budget, ())):
        same = [row_flops(LLAVA, other, 300, 150, pictures, replace(FINETUNE, taught=each)) for each in (False, True)]
        assert same[0] == same[1]


def test_a_row_of_text_costs_no_tower() -> None:
    assert row_flops(LLAVA, None, 300, 150, (), FINETUNE) < 0.4 * row_flops(LLAVA, None, 300, 150, (576,), FINETUNE)


@pytest.mark.parametrize(("stage", "expected"), [(2, 24.2), (3, 12.7)])
def test_memory_by_stage(stage: int, expected: float) -> None:
    """25.3 and 13.5 GB of weights, gradients and AdamW on eight GPUs, the frozen tower not counted there."""
    memory = memory_of(replace(FINETUNE, stage=stage), 16 * 876, 16 * 150, LLAVA)
    assert (memory.total - memory.activations) / GIB == pytest.approx(expected, abs=0.2)
    offloaded = memory_of(replace(FINETUNE, stage=stage, offloaded=True), 16 * 876, 16 * 150, LLAVA)
    assert offloaded.optimizer == 0


def test_stage_of_a_deepspeed_file() -> None:
    assert zero_of({"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu"}}}) == (3, True)
    assert zero_of({"zero_optimization": {"stage": 2}}) == (2, False)
    assert zero_of(None) == (0, False)
