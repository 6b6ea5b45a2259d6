"""Placeholders of a prompt, unit by unit (picture, crop, frame), and which of them reduced features fill."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from duet.ops.gather import take
from duet.types import Layout, Placement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from duet.types import Reduction


class Units:
    """The placeholders of one kind (`<image>`, `<video>`), numbered row by row.

    Args:
        placeholder: `[B, T]` bool.
        sizes: placeholders of each unit in prompt order.

    Attributes:
        unit: `[B, T]` long, the unit of a column; -1 elsewhere.
        slot: `[B, T]` long, the place within its unit; -1 elsewhere.

    Raises:
        ValueError: the sizes do not add up to the placeholders, or a unit lies across two rows.
    """

    def __init__(self, placeholder: Tensor, sizes: Sequence[int]) -> None:
        counts = placeholder.sum(1).tolist()
        if sum(counts) != sum(sizes):
            raise ValueError(f"the prompt rows hold {counts} placeholders, but the pictures make {list(sizes)} tokens")
        ends = torch.tensor([0, *sizes], device=placeholder.device).cumsum(0)
        number = (placeholder.flatten().long().cumsum(0) - 1).view_as(placeholder)
        unit = (torch.searchsorted(ends, number, right=True) - 1).clamp_min(0)
        self.placeholder = placeholder
        self.sizes = list(sizes)
        self.unit = torch.where(placeholder, unit, -1)
        self.slot = torch.where(placeholder, number - ends[unit], -1)
        self.rows = _split_rows(counts, self.sizes)

    def slots(self, reduction: Reduction, in_place: bool, size: int | None = None) -> tuple[Tensor, Tensor]:
        """Features in the order of the slots that they fill, `[P, K, D]`, and those slots, `[P, K]` ascending.

        In place, a token takes the slot of its patch, and CLS the first free one: its own, in front of the patches,
        where the prompt has one for it.

        Args:
            reduction: of units that are equally large.
            in_place: see above; otherwise the first slots are filled.
            size: placeholders of each of these units; None where all units of the kind are equally large.
        """
        size, kept = min(self.sizes, default=0) if size is None else size, reduction.kept.shape[1]
        if kept > size:
            raise ValueError(f"stage 1 makes {kept} tokens of a picture that has only {size} placeholders")
        if not in_place:
            return reduction.features, torch.arange(kept, device=reduction.kept.device).expand_as(reduction.kept)
        slots = _own_slots(reduction.kept, size, first=size - reduction.assign.shape[1])
        order = slots.argsort(1)
        return take(reduction.features, order), slots.gather(1, order)

    def mask(self, members: Tensor, slots: Tensor | None) -> Tensor:
        """Columns of some units, `[B, T]` bool.

        Args:
            members: `[P]` numbers of the units.
            slots: `[P, K]` the slots to mark in each of them; None for all.
        """
        wanted = torch.zeros(len(self.sizes), max(self.sizes, default=1), dtype=torch.bool, device=self.slot.device)
        members = members.to(wanted.device)
        if slots is None:
            wanted[members] = True
        else:
            wanted[members[:, None], slots] = True
        return self.placeholder & wanted[self.unit, self.slot]


def merge_parts(
    parts: list[tuple[Tensor, Tensor]],
    kinds: Sequence[Units],
    attention_mask: Tensor | None,
    groups: Sequence[Sequence[tuple[int, int]]] | None = None,
    separators: Tensor | None = None,
) -> Placement:
    """Put masks and features of several kinds together.

    Args:
        parts: masks `[B, T]` and features `[F, Dt]`.
        kinds: placeholders of each kind.
        attention_mask: `[B, T]`; None for no padding.
        groups: per kind, `(group, index)` of each unit among the adapter's states; None: kind i is group i.
        separators: `[B, T]` bool, filled columns that stage 2 may not drop.
    """
    placeholder = torch.stack([kind.placeholder for kind in kinds]).any(0)
    filled = torch.stack([mask for mask, _ in parts]).any(0)
    valid = torch.ones_like(placeholder) if attention_mask is None else attention_mask.bool()
    named = groups or [[(number, unit) for unit in range(len(kind.sizes))] for number, kind in enumerate(kinds)]
    starts: list[list[tuple[int, tuple[int, int]]]] = [[] for _ in placeholder]
    for kind, names in zip(kinds, named, strict=True):
        for row, numbers in enumerate(kind.rows):
            columns = (kind.slot[row] == 0).nonzero().flatten().tolist()
            starts[row] += zip(columns, [names[number] for number in numbers], strict=True)
    units = [[name for _, name in sorted(row)] for row in starts]
    visual = filled if separators is None else filled & ~separators
    return Placement(parts, Layout(placeholder, filled, visual, valid, units))


def _own_slots(kept: Tensor, size: int, first: int) -> Tensor:
    """Slot of each token among `size`, patch 0 in slot `first`; a token without patch (-1) gets the first free one."""
    of_cls = kept < 0
    taken = torch.zeros(len(kept), size + 1, dtype=torch.bool, device=kept.device)
    taken = taken.scatter(1, torch.where(of_cls, size, kept + first), True)
    free = (~taken[:, :size]).int().argmax(1, keepdim=True)
    return torch.where(of_cls, free, kept + first)


def _split_rows(counts: Sequence[int], sizes: Sequence[int]) -> list[list[int]]:
    """Numbers of the units that lie in each row."""
    rows: list[list[int]] = []
    number = 0
    for row, count in enumerate(counts):
        members: list[int] = []
        while sum(sizes[member] for member in members) < count:
            members.append(number)
            number += 1
        if sum(sizes[member] for member in members) != count:
            raise ValueError(
                f"prompt row {row} has {count} placeholders, its pictures make {[sizes[m] for m in members]}"
            )
        rows.append(members)
    return rows
