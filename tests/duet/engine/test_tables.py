"""Rotary tables and masks are made once per length in a prompt, and tables once per step, on every family."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch

import duet
from duet.budget import Budget
from duet.engine.attachment import attached
from tests.families import Family


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """How often tables and masks are made."""
    from duet.engine import fresh, prompt

    counts: Counter = Counter()

    def counted(name: str, own: Any) -> Any:
        def made_again(*args: Any, **kwargs: Any) -> Any:
            counts[name] += 1
            return own(*args, **kwargs)

        return made_again

    for module in (prompt, fresh):
        for name in ("rope_tables", "create_causal_mask"):
            monkeypatch.setattr(module, name, counted(name, getattr(module, name)))
    return counts


def pictured(family: Family) -> list[Any]:
    """Prompts with pictures; they differ in length."""
    vision = attached(duet.attach(family.build(), "none", Budget(away=(1,))))
    return [
        row for row in family.prompts if bool(vision.compression.vision.placeholders(vision.body, row.ids[None]).any())
    ]


SHAPES = {
    "two drops": ({"layers": (2, 4)}, 3),
    "away twice": ({"layers": (2,), "ratios": (0.5,), "away": (1, 4)}, 3),
    "late and away": ({"entry": 1, "layers": (4,), "ratios": (0.5,), "away": (3,)}, 3),
}


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("positions", ["keep", "renumber"])
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_once_per_length(family, shape, positions, rows, made):
    """Text alone, all tokens, and those after each drop: an absence, and coming back, make nothing new."""
    changes, lengths = SHAPES[shape]
    model = duet.attach(family.build(), "duet", replace(family.budget, **changes), positions=positions)
    prompts = [pictured(family)[0]] if rows == 1 else pictured(family)[-1:] + family.prompts[:2]
    batch = family.collate(prompts)
    cache = model(**batch).past_key_values
    # renumbered, the text has other positions after the drop between two absences
    again = shape == "away twice" and positions == "renumber"
    assert made == {"rope_tables": lengths + again, "create_causal_mask": lengths + again}
    made.clear()
    mask = torch.cat([batch["attention_mask"], torch.ones(len(prompts), 1, dtype=torch.long)], 1)
    model(input_ids=torch.full((len(prompts), 1), 7), attention_mask=mask, past_key_values=cache)
    segments = cache.prompt.segments
    distinct = len({(one.width, id(one.valid)) for one in segments})
    assert distinct <= lengths + again
    assert made == {"rope_tables": 1, "create_causal_mask": distinct}
