"""LLaVA-NeXT against the original code's numbers (tests/golden/llava15_tiny) for pictures of several crops."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import duet
from duet.budget import Budget
from tests import golden_llava as golden
from tests.llava_next_checkpoints import NEWLINE, golden_next
from tests.plain_duet import Plan, eager, run
from tests.plain_next import embedder
from tests.tiny_llava_next import Row

BUDGET = Budget(dominant=170, contextual=35)
#: Height and width of the picture, its crops, its placeholders.
CASES = {"5crops_672x672": ((672, 672), 5, 576 + 48 * 49), "1crop": ((336, 336), 1, 577)}


@pytest.fixture(scope="module")
def model() -> Any:
    return golden_next()


def crops() -> Tensor:
    """Base crop first: the golden pictures, then two of them mirrored left-right."""
    pixels = golden.pixels()
    return torch.cat([pixels, pixels[:2].flip(-1)])


def prompt(size: tuple[int, int], pixels: Tensor, placeholders: int) -> dict[str, Tensor]:
    ids = torch.tensor([[1, *[golden.IMAGE] * placeholders, 5, 6]])
    return {"input_ids": ids, "pixel_values": pixels[None], "image_sizes": torch.tensor([size])}


def embedded(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """What enters the first layer, `[T', D]`."""
    seen: list[Tensor] = []
    handle = model.model.language_model.layers[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        model(**inputs)
    handle.remove()
    return seen[0][0]


@pytest.mark.parametrize("name", CASES)
def test_stage1_in_the_released_order(model, name):
    size, count, placeholders = CASES[name]
    expected = golden.tensors("golden_anyres")
    duet.attach(model, "visionzip_c", BUDGET, newlines="drop")
    with duet.record(model) as trace:
        found = embedded(model, prompt(size, crops()[:count], placeholders))
    torch.testing.assert_close(found[1:-2], expected[f"{name}.visual_embeds"], atol=golden.FEATURES, rtol=0)
    for reduction, patches in zip(trace.reductions[0], expected["crop_dominant_patches"], strict=False):
        assert reduction.kept[0, 0] == -1
        assert reduction.kept[0, 1:170].tolist() == patches.tolist()
    assert trace.entered == [count * 205]


def test_newlines_stand_between_the_rows_of_dominant_patches(model):
    size, count, placeholders = CASES["5crops_672x672"]
    expected = golden.tensors("golden_anyres")
    duet.attach(model, "visionzip_c", BUDGET)
    found = embedded(model, prompt(size, crops(), placeholders))[1:-2]
    newline = (found == NEWLINE).all(-1)
    embeds = expected["5crops_672x672.visual_embeds"]
    torch.testing.assert_close(found[~newline], embeds, atol=golden.FEATURES, rtol=0)
    # how many dominant patches of the tiles (two by two) each row of the picture has
    rows = torch.zeros(48, dtype=torch.long)
    for tile, patches in enumerate(expected["crop_dominant_patches"][1:].long()):
        rows += torch.bincount(tile // 2 * 24 + patches // 24, minlength=48)
    places = newline.nonzero().flatten()
    assert places.tolist() == (205 + rows.cumsum(0) + torch.arange(48)).tolist()
    assert len(found) == count * 205 + 48


@pytest.mark.parametrize("newlines", ["keep", "drop"])
@pytest.mark.parametrize("size", [(672, 336), (336, 672), (300, 640)], ids=str)
@torch.no_grad()
def test_three_crops_and_both_stages(model, size, newlines):
    """What the original crashes on, against the slow restatement."""
    columns = 24 if size[0] > size[1] else 48
    rows = {672: 48, 336: 24, 300: 22}[size[0]]
    inputs = prompt(size, crops()[:3], 576 + rows * (columns + 1))
    budget = Budget(dominant=72, contextual=30, layers=(16, 24), ratios=(0.5, 0.0))
    duet.attach(model, "duet", budget, newlines=newlines)
    with duet.record(model) as trace:
        logits = model(**inputs).logits[0]
    assert trace.entered == [3 * 102]
    ids = inputs["input_ids"][0]
    row = Row(ids, torch.full_like(ids, -100), [size], [crops()[:3]])
    plan = Plan("released", 72, 30, voters="all", layers=(16, 24), ratios=(0.5, 0.0))
    wanted = run(eager(model), row, plan, embed=embedder(newlines))
    assert [stage.kept[0].tolist() for stage in trace.stages] == wanted.kept
    torch.testing.assert_close(logits[wanted.columns], wanted.logits, atol=golden.LOGITS, rtol=0)
