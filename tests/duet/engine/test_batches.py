"""A row alone and in a batch: the same kept sets, logits and tokens, for any neighbours and padding."""

from __future__ import annotations

import pytest
import torch

from tests.duet.engine.cases import CASES, FEW
from tests.tiny_llava import Row, collate, make_row, prompt_of
from tests.tiny_parts import check_rows_alone

LOGITS = {"atol": 1e-4, "rtol": 0}


def mixed_rows(placeholders: int = 16) -> list[Row]:
    """Rows with 1, 0, 3 and 2 pictures, of different lengths."""
    wanted = [(1, 7), (0, 12), (3, 3), (2, 1)]
    rows = [make_row(pictures, text, seed, placeholders) for seed, (pictures, text) in enumerate(wanted, 1)]
    return [prompt_of(row) for row in rows]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_a_row_does_not_depend_on_its_neighbours(kind, name, side):
    model, _, placeholders = kind
    CASES[name].attach(model)
    check_rows_alone(model, mixed_rows(placeholders), collate, side, LOGITS)


@pytest.mark.parametrize("name", FEW)
def test_greedy_tokens_of_a_row_do_not_depend_on_its_neighbours(tiny, name):
    rows = mixed_rows()
    CASES[name].attach(tiny)
    together = tiny.generate(**collate(rows), max_new_tokens=6, do_sample=False)[:, -6:]
    alone = [tiny.generate(**collate([row]), max_new_tokens=6, do_sample=False)[0, -6:] for row in rows]
    assert together.tolist() == torch.stack(alone).tolist()


@torch.no_grad()
def test_a_row_of_text_equals_stock_inside_a_batch_with_pictures(tiny):
    rows = mixed_rows()
    text = collate([rows[1]])
    wanted = tiny(**text).logits[0]
    CASES["duet"].attach(tiny)
    batch = collate(rows)
    logits = tiny(**batch).logits[1, batch["attention_mask"][1].bool()]
    torch.testing.assert_close(logits, wanted, **LOGITS)


@torch.no_grad()
def test_the_content_of_padding_does_not_matter(tiny):
    """Neither the ids at padding columns nor their number matter."""
    row = mixed_rows()[0]
    CASES["duet"].attach(tiny)
    wanted = tiny(**collate([row])).logits[0]
    for side, at in (("left", slice(5, None)), ("right", slice(0, -5))):
        batch = collate([row])
        padding = torch.randint(3, 90, (1, 5))
        parts = {"input_ids": padding, "attention_mask": torch.zeros_like(padding)}
        for name, extra in parts.items():
            whole = [extra, batch[name]] if side == "left" else [batch[name], extra]
            batch[name] = torch.cat(whole, 1)
        torch.testing.assert_close(tiny(**batch).logits[0, at], wanted, **LOGITS)
