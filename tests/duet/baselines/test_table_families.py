"""The paper's baselines on all families: rows as if alone, half precision, and what a tower cannot give."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import duet
from duet.budget import Budget
from duet.errors import UserError
from tests.families import FAMILIES
from tests.tiny_parts import check_rows_alone

TOLERANCE = {"atol": 2e-4, "rtol": 0}
INSIDE = ("fastv", "sparsevlm", "sparsevlm_plus", "fitprune", "dart")
BEFORE = ("hired", "prumerge", "prumerge_plus")


def attach(model: Any, name: str) -> Any:
    """7 tokens of a unit, or 60 % and 30 % of the tokens after layers 1 and 3."""
    inside = Budget(layers=(1, 3), ratios=(0.6, 0.3))
    return duet.attach(model, name, inside if name in INSIDE else Budget(dominant=7))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", [*INSIDE, *BEFORE])
@torch.no_grad()
def test_a_row_alone_equals_the_row_in_a_batch(name, family):
    known = FAMILIES[family]
    model = known.build()
    if name in BEFORE and "qwen" in family:
        with pytest.raises(UserError, match="from the vision tower, which Qwen"):
            attach(model, name)
        return
    attach(model, name)
    for side in ("left", "right"):
        check_rows_alone(model, known.prompts, known.collate, side, TOLERANCE)


@pytest.mark.parametrize("name", [*INSIDE, *BEFORE])
@torch.no_grad()
def test_half_precision(name):
    """Scores, distances and sums are made in float32; what comes out has the model's type."""
    known = FAMILIES["llava_next"]
    model = attach(known.build().to(torch.bfloat16), name)
    batch = known.collate(known.prompts, "left")
    batch["pixel_values"] = batch["pixel_values"].to(torch.bfloat16)
    logits = model(**batch).logits
    assert logits.dtype == torch.bfloat16 and torch.isfinite(logits).all()
