"""The sequence between two layers: deep features still to be added move, merge and are used up with it."""

from __future__ import annotations

import pytest
import torch

from duet.edit import NONE, Edit
from duet.engine.tokens import Tokens


def make_tokens(left: bool = False) -> Tokens:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 7, 4, generator=generator)
    columns = torch.arange(7).expand(2, -1)
    valid = torch.ones(2, 7, dtype=torch.bool)
    valid[1, :2] = not left
    valid[1, 5:] = left
    return Tokens(hidden, columns, valid, columns, True, left, deep=(2 * hidden, -hidden))


def merging() -> Edit:
    """Of columns 2, 3, 4 two are left, the other flows into one of them; the second row makes a new token of all."""
    return Edit(
        kept=torch.tensor([[2, 4], [3, NONE]]),
        tokens=7,
        source=torch.tensor([[3, NONE, NONE], [2, 3, 4]]),
        target=torch.tensor([[1, 0, 0], [0, 0, 0]]),
        weight=torch.tensor([[0.5, 0.0, 0.0], [0.2, 0.3, 0.5]]),
        share=torch.tensor([[1.0, 0.5], [0.0, 0.0]]),
        contextual=2,
    )


@pytest.mark.parametrize("left", [False, True])
def test_what_is_to_be_added_is_edited_like_the_tokens(left):
    tokens = make_tokens(left)
    candidates = torch.zeros(2, 7, dtype=torch.bool)
    candidates[:, 2:5] = True
    for move in (tokens.keep(~candidates), tokens.edit(Edit.keep(torch.tensor([[2], [4]]), 7), candidates)):
        after = tokens.after(move, renumber=True)
        assert torch.equal(after.deep[0], 2 * after.hidden) and torch.equal(after.deep[1], -after.hidden)
    after = tokens.after(tokens.edit(merging(), candidates), renumber=False)
    assert after.hidden.shape[1] < 7
    torch.testing.assert_close(after.deep, (2 * after.hidden, -after.hidden))


def test_layers_use_it_up_one_after_the_other():
    tokens = make_tokens()
    first = tokens.through(torch.ones_like(tokens.hidden))
    torch.testing.assert_close(first.hidden, 1 + 2 * tokens.hidden)
    second = first.through(torch.zeros_like(tokens.hidden))
    assert torch.equal(second.hidden, -tokens.hidden) and second.deep == ()
    assert torch.equal(second.through(tokens.hidden).hidden, tokens.hidden)
