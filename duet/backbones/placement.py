"""The placeholders of a prompt by unit (picture, crop, frame), and those that reduced features fill."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from duet.edit import CLS, NONE
from duet.ops.gather import take
from duet.types import Filling, Layout, Placement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from duet.types import Reduction, VisionStates


def on_host(inputs: dict[str, Any], name: str) -> Any:
    """An argument of the prompt to be read by the host: its copy there if the engine has made one."""
    return (inputs.get("on_host") or {}).get(name, inputs.get(name))


class Units:
    """The placeholders of one kind (`<image>`, `<video>`), numbered row by row.

    Args:
        placeholder: `[B, T]` bool, on the host if the engine has read the prompt.
        sizes: number of placeholders of each unit, in prompt order.
        device: of the masks; default that of `placeholder`.

    Attributes:
        unit: `[B, T]` long, the unit of a column; -1 elsewhere.
        slot: `[B, T]` long, the index within its unit; -1 elsewhere.
        filled: visual tokens of each unit; None until known, and where only the device knows.
        separators: separators of each unit, besides.

    Raises:
        ValueError: the sizes do not add up to the placeholders, or a unit spans two rows.
    """

    def __init__(self, placeholder: Tensor, sizes: Sequence[int], device: torch.device | None = None) -> None:
        counts = placeholder.sum(1).tolist()
        if sum(counts) != sum(sizes):
            raise ValueError(f"the prompt rows hold {counts} placeholders, but the pictures make {list(sizes)} tokens")
        ends = torch.tensor([0, *sizes], device=placeholder.device).cumsum(0)
        number = (placeholder.flatten().long().cumsum(0) - 1).view_as(placeholder)
        unit = (torch.searchsorted(ends, number, right=True) - 1).clamp_min(0)
        self.placeholder = placeholder
        self.device = device or placeholder.device
        self.sizes = list(sizes)
        self.filled: list[int | None] = [None] * len(self.sizes)
        self.separators = [0] * len(self.sizes)
        self.unit = torch.where(placeholder, unit, -1)
        self.slot = torch.where(placeholder, number - ends[unit], -1)
        self.rows = _split_rows(counts, self.sizes)

    def fill(
        self,
        members: Sequence[int],
        group: int,
        states: VisionStates,
        reduction: Reduction | None,
        in_place: bool,
    ) -> Filling:
        """Put the tokens of equally large units into their slots.

        Without stage 1 all tokens are placed, CLS first if the prompt has a slot for it. Reduced tokens fill the first
        slots or, in place, the slots of the patches that they represent; CLS then takes the first free slot, which is
        its own if the prompt has one.

        Args:
            members: indices of the units, ascending.
            group: index of `states` in the adapter's list.
            states: of these units.
            reduction: of `states`; None without stage 1.
            in_place: see above.
        """
        size = self.sizes[members[0]] if members else 0
        slots: Tensor | None = None
        if reduction is None:
            features, tokens = _all_tokens(states, size)
            streams = (features, *states.deep)
        else:
            slots, tokens = _slots(reduction, in_place, size)
            streams = (reduction.features, *reduction.deep)
            streams = tuple(take(one, tokens) for one in streams) if in_place else streams
        index = torch.arange(len(tokens), device=tokens.device)[:, None].expand_as(tokens)
        origin = torch.stack([torch.full_like(tokens, group), index, tokens], dim=-1).flatten(0, 1)
        streams = tuple(one.flatten(0, 1) for one in streams)
        if reduction is not None and reduction.ragged and slots is not None:
            real = (slots < size).flatten()
            origin, streams = origin[real], tuple(one[real] for one in streams)
        if reduction is None or not reduction.ragged:
            for member in members:
                self.filled[member] = tokens.shape[1]
        return Filling(self.mask(torch.tensor(members), slots), streams[0], origin, streams[1:])

    def mask(self, members: Tensor, slots: Tensor | None) -> Tensor:
        """Mask of the columns of some units, `[B, T]` bool.

        Args:
            members: `[P]` indices of the units.
            slots: `[P, K]`, the slots to mark in each of them; None for all. Slots beyond a unit's size are ignored.
        """
        longest = max(self.sizes, default=1)
        # where only the device knows the slots, it makes the mask
        known = slots is None or self.slot.device.type != "cpu"
        placeholder, unit, slot = self._on(self.slot.device if known or slots is None else slots.device)
        wanted = torch.zeros(len(self.sizes), longest + 1, dtype=torch.bool, device=slot.device)
        members = members.to(wanted.device, non_blocking=True)
        if slots is None:
            wanted[members] = True
        else:
            wanted[members[:, None], slots.to(wanted.device, non_blocking=True).clamp_max(longest)] = True
        return (placeholder & wanted[unit, slot]).to(self.device, non_blocking=True)

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Placeholders, units and slots."""
        return tuple(one.to(device, non_blocking=True) for one in (self.placeholder, self.unit, self.slot))  # type: ignore[return-value]


def merge_parts(
    parts: list[Filling],
    kinds: Sequence[Units],
    attention_mask: Tensor | None,
    groups: Sequence[Sequence[Sequence[tuple[int, int]]]] | None = None,
    separators: Tensor | None = None,
) -> Placement:
    """Combine the masks and features of several kinds.

    Args:
        parts: projected features and the columns that they fill.
        kinds: placeholders of each kind.
        attention_mask: `[B, T]`; None for no padding.
        groups: for each kind and unit, its `(group, index)` in the adapter's states, several for a picture with crops;
            None: kind i is group i.
        separators: `[B, T]` bool, filled columns that stage 2 may not drop.
    """
    placeholder = torch.stack([kind.placeholder for kind in kinds]).any(0).to(kinds[0].device, non_blocking=True)
    filled = torch.stack([part.mask for part in parts]).any(0)
    valid = torch.ones_like(placeholder) if attention_mask is None else attention_mask.bool()
    named = groups or [[[(number, unit)] for unit in range(len(kind.sizes))] for number, kind in enumerate(kinds)]
    starts: list[list[tuple[int, Sequence[tuple[int, int]]]]] = [[] for _ in placeholder]
    for kind, names in zip(kinds, named, strict=True):
        for row, numbers in enumerate(kind.rows):
            columns = (kind.slot[row] == 0).nonzero().flatten().tolist()
            starts[row] += zip(columns, [names[number] for number in numbers], strict=True)
    units = [[name for _, names in sorted(row) for name in names] for row in starts]
    visual = filled if separators is None else filled & ~separators
    return Placement(parts, Layout(placeholder, filled, visual, valid, units), **_counts(kinds))


def _counts(kinds: Sequence[Units]) -> dict[str, Any]:
    """The counts of a `Placement`, as far as the host knows them."""
    if any(count is None for kind in kinds for count in kind.filled):
        return {}
    rows = [list(zip(kinds, row, strict=True)) for row in zip(*(kind.rows for kind in kinds), strict=True)]
    return {
        "entered": [sum(kind.filled[unit] or 0 for kind, units in row for unit in units) for row in rows],
        "separators": [sum(kind.separators[unit] for kind, units in row for unit in units) for row in rows],
        "kinds": [(kind.placeholder, sum(map(int, (*kind.filled, *kind.separators)))) for kind in kinds],  # type: ignore[arg-type]
    }


def _all_tokens(states: VisionStates, size: int) -> tuple[Tensor, Tensor]:
    """All patches `[P, size, D]`, after CLS if it has a slot, and their indices `[P, size]`, -1 for CLS."""
    features, patches = states.features, states.features.shape[1]
    if size > patches and states.cls is not None:
        features = torch.cat([states.cls[:, None], features], dim=1)
    first = patches - features.shape[1]
    return features, torch.arange(first, patches, device=features.device).expand(len(features), -1)


def _slots(reduction: Reduction, in_place: bool, size: int) -> tuple[Tensor, Tensor]:
    """Slots to fill, `[P, K]` ascending, and the output tokens for them, `[P, K]`; slots from `size` on are unused."""
    kept = reduction.kept.shape[1]
    if kept > size:
        raise ValueError(f"stage 1 makes {kept} tokens from a picture that has only {size} placeholders")
    if not in_place:
        first = torch.arange(kept, device=reduction.kept.device).expand_as(reduction.kept)
        if not reduction.ragged:
            return torch.arange(kept).expand_as(reduction.kept), first
        return torch.where(reduction.kept == NONE, size, first), first
    slots = own_slots(reduction.kept, size, first=size - reduction.assign.shape[1])
    order = slots.argsort(1)
    return slots.gather(1, order), order


def own_slots(kept: Tensor, size: int, first: int) -> Tensor:
    """Slot of each token among `size`, with patch 0 in slot `first`; CLS gets the first free slot, padding `size`."""
    taken = torch.zeros(len(kept), size + 1, dtype=torch.bool, device=kept.device)
    taken = taken.scatter(1, torch.where(kept < 0, size, kept + first), True)
    free = (~taken[:, :size]).int().argmax(1, keepdim=True)
    slots = torch.where(kept == CLS, free, kept + first)
    return torch.where(kept == NONE, size, slots)


def _split_rows(counts: Sequence[int], sizes: Sequence[int]) -> list[list[int]]:
    """Indices of the units in each row."""
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
