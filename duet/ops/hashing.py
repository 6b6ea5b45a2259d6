"""The order in which CPython (3.7 and later) iterates over a set of a few whole numbers, as tensors.

Released codes that loop over `set(columns)` visit tokens in this order. It is fixed by the numbers and by the order
in which they were put in, so it can be computed for a whole batch, without reading anything back to the host.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Size of a new set's table, and the size that it grows to with its fifth number (Objects/setobject.c).
SMALL, LARGE = 8, 32
#: Numbers that the small table takes; the next one makes it grow.
FULL = 4
#: Slots that are looked at in a row, where the table does not end before.
LINEAR = 10
#: Jumps after which every slot has been looked at: the upper bits are used up, then one full cycle over what is taken.
JUMPS = 12


def set_order(numbers: Tensor, real: Tensor) -> Tensor:
    """Where a loop over `set(numbers)` meets each number.

    Args:
        numbers: `[B, P]` long, different in each row, from 0 to 2**20; in the order in which they are put in, P <= 18.
        real: `[B, P]` bool, False at padding, which may only follow.

    Returns:
        `[B, P]` long: entry i is the place in `numbers` of what is met i-th; padding comes last.
    """
    head = numbers[:, : FULL + 1]
    first = _fill(head, real[:, : FULL + 1], SMALL)
    if numbers.shape[1] <= FULL:
        return first.argsort(dim=-1, stable=True)
    # growing puts the first five into the large table in the order of the small one
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
    """Slots that are looked at for each number, `[B, P, Q]`, and which of them are looked at indeed."""
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
