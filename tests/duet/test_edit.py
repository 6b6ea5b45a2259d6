"""An edit against a loop over its outputs, in every dtype, with padding, neighbourhoods that overlap, and gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from duet.edit import CLS, NONE, Edit


def random_edit(seed: int, batch: int = 2, tokens: int = 7, outputs: int = 5, flows: int = 6) -> Edit:
    """With CLS, padding, shares and overlapping sources; the last three outputs receive."""
    generator = torch.Generator().manual_seed(seed)

    def pick(high: int, *shape: int, low: int = 0) -> torch.Tensor:
        return torch.randint(low, high, shape, generator=generator)

    order = torch.stack([torch.randperm(tokens, generator=generator) for _ in range(batch)])
    kept = order[:, :outputs].clone()
    kept[0, 0] = CLS
    kept[1, -1] = NONE
    weight = torch.rand(batch, flows, generator=generator, dtype=torch.float64)
    share = torch.rand(batch, outputs, generator=generator, dtype=torch.float64)
    return Edit(kept, tokens, pick(tokens, batch, flows, low=-2), pick(outputs, batch, flows, low=2), weight, share, 3)


def plain(edit: Edit, x: torch.Tensor, cls: torch.Tensor) -> torch.Tensor:
    rows = []
    for b in range(len(x)):
        row = []
        for slot, token in enumerate(edit.kept[b].tolist()):
            own = torch.zeros_like(cls[b]) if token == NONE else cls[b] if token == CLS else x[b, token]
            total = own * edit.share[b, slot]
            for source, target, weight in zip(
                edit.source[b].tolist(), edit.target[b].tolist(), edit.weight[b], strict=True
            ):
                if target == slot and source >= 0 and token != NONE:
                    total = total + weight * x[b, source]
            row.append(total)
        rows.append(torch.stack(row))
    return torch.stack(rows)


@given(st.integers(0, 10**6))
def test_equals_a_loop(seed):
    edit = random_edit(seed)
    x, cls = torch.randn(2, 7, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    torch.testing.assert_close(edit.apply(x, cls), plain(edit, x, cls))


def test_a_plain_selection_copies_bit_for_bit():
    x = torch.randn(2, 6, 3).bfloat16()
    kept = torch.tensor([[4, 1], [0, NONE]])
    edit = Edit.keep(kept, 6)
    assert not edit.merges
    assert torch.equal(edit.apply(x)[0], x[0, [4, 1]])
    assert torch.equal(edit.apply(x)[1], torch.stack([x[1, 0], torch.zeros(3).bfloat16()]))
    assert edit.marked.tolist() == [[False, True, False, False, True, False], [True] + [False] * 5]


def test_counts_do_not_stop_at_256_in_half_precision():
    """A mean of 1000 equal values: sums in bfloat16 stop growing when adding 1 to 256 is lost."""
    x = torch.full((1, 1001, 2), 1.0).bfloat16()
    members = torch.arange(1, 1001)[None]
    edit = Edit(torch.tensor([[0]]), 1001, members, torch.zeros_like(members), torch.full((1, 1000), 1e-3), None, 1)
    assert edit.apply(x).tolist() == [[[2.0, 2.0]]]


def many_to_few() -> tuple[torch.Tensor, Edit]:
    """200 tokens, 199 of them in random order into 4 outputs."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 200, 8, generator=generator)
    source = torch.randperm(199, generator=generator)[None] + 1
    target = torch.randint(0, 4, (1, 199), generator=generator)
    weight = torch.rand(1, 199, generator=generator)
    return x, Edit(torch.arange(4)[None], 200, source, target, weight, None, 4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once(dtype):
    """Sums and weights stay in float32; only the result is rounded."""
    x, edit = many_to_few()
    assert torch.equal(edit.apply(x.to(dtype)), edit.apply(x.to(dtype).float()).to(dtype))


@pytest.mark.gpu
def test_a_gpu_adds_in_one_order():
    """Scattered sums would come in any order there; one product of matrices does not."""
    x, edit = many_to_few()
    parts = {name: getattr(edit, name).cuda() for name in ("kept", "source", "target", "weight")}
    there = Edit(**parts, tokens=200, contextual=4)
    once = there.apply(x.cuda())
    assert all(torch.equal(there.apply(x.cuda()), once) for _ in range(20))


def test_assign_names_the_first_output_and_kept_tokens_their_own():
    edit = Edit(
        kept=torch.tensor([[0, 3, 5]]),
        tokens=6,
        source=torch.tensor([[1, 1, 5, 3, NONE]]),
        target=torch.tensor([[2, 1, 1, 2, 1]]),
        weight=torch.ones(1, 5),
        contextual=2,
    )
    assert edit.assign.tolist() == [[0, 1, -1, 1, -1, 2]]


def test_gradients_flow_to_kept_tokens_and_sources():
    edit = random_edit(3)
    x = torch.randn(2, 7, 3, dtype=torch.float64, requires_grad=True)
    cls = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(edit.apply, (x, cls))
