"""The order in which CPython (3.7 and later) iterates over a small set of integers, as tensors.

Released codes that loop over `set(columns)` visit tokens in this order. It depends only on the numbers and the order
of their insertion, so it is computed for a whole batch without reading anything back to the host.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Table size of a new set, and its size after it grows at the fifth number (Objects/setobject.c).
SMALL, LARGE = 8, 32
#: Capacity of the small table; the next number makes it grow.
FULL = 4
#: Length of a linear probe; it does not run past the end of the table.
LINEAR = 10
#: Jumps that are enough to reach every slot: the upper bits are used up, then one full cycle over the taken slots.
JUMPS = 12


def set_order(numbers: Tensor, real: Tensor) -> Tensor:
    """The order in which a loop over `set(numbers)` visits the numbers.

    Args:
        numbers: `[B, P]` long, distinct within a row, from 0 to 2**20, in the order of insertion; P <= 18.
        real: `[B, P]` bool, False at padding, which must come last.

    Returns:
        `[B, P]` long: entry i is the index in `numbers` of the i-th number visited; padding comes last.
    """
    head = numbers[:, : FULL + 1]
    first = _fill(head, real[:, : FULL + 1], SMALL)
    if numbers.shape[1] <= FULL:
        return first.argsort(dim=-1, stable=True)
    # when the table grows, the first five are inserted again, in the order of the small table
    again = torch.cat([first.argsort(dim=-1, stable=True), _rest(numbers)], dim=1)
    grown = _fill(numbers.gather(1, again), real.gather(1, again), LARGE)
    slots = torch.empty_like(grown).scatter_(1, again, grown)
    few = torch.cat([first, torch.full_like(_rest(numbers), SMALL)], dim=1)
    grew = real.sum(-1, keepdim=True) > FULL
    return torch.where(grew, slots, few).argsort(dim=-1, stable=True)


def _rest(numbers: Tensor) -> Tensor:
    """Places after the first five, `[B, P - 5]`."""
    places = torch.arange(FULL + 1, numbers.shape[1], device=numbers.device)
    return places.expand(len(numbers), -1)


def _fill(numbers: Tensor, real: Tensor, size: int) -> Tensor:
    """The slot of each number in an empty table of `size` slots, `[B, P]`; `size` for padding."""
    probes, allowed = _probes(numbers, size)
    taken = torch.zeros(len(numbers), size, dtype=torch.bool, device=numbers.device)
    slots = []
    for place in range(numbers.shape[1]):
        free = allowed[:, place] & ~taken.gather(1, probes[:, place])
        slot = probes[:, place].gather(1, free.long().argmax(-1, keepdim=True))
        taken = taken | torch.zeros_like(taken).scatter_(1, slot, real[:, place, None])
        slots.append(slot)
    return torch.cat(slots, 1).masked_fill(~real, size)


def _probes(numbers: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Slots to probe for each number, `[B, P, Q]`, and a mask of the probes that really happen."""
    mask = size - 1
    slot, upper, starts = numbers & mask, numbers, []
    for _ in range(JUMPS):
        starts.append(slot)
        upper = upper >> 5
        slot = (slot * 5 + 1 + upper) & mask
    start = torch.stack(starts, -1)[..., None]
    steps = torch.arange(LINEAR, device=numbers.device)
    allowed = (steps == 0) | (start + LINEAR - 1 <= mask)
    return ((start + steps) & mask).flatten(-2), allowed.flatten(-2)
