"""Stage 1 on all units (pictures, crops, frames) of a call, each on its own or all of a picture or video as one row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import pad

from duet.edit import NONE
from duet.ops.gather import close_gaps, take
from duet.ops.regions import region
from duet.types import PATCH_FIELDS, TEXT_FIELDS, Reduction, VisionStates

if TYPE_CHECKING:
    from torch import Tensor

    from duet.budget import Stage1
    from duet.edit import Edit
    from duet.interfaces import VisionReducer
    from duet.types import Unit


def reduce_units(
    reducer: VisionReducer, stage1: Stage1, states: list[VisionStates], units: list[list[Unit]]
) -> list[Reduction]:
    """Reduce groups of units by the method's scope, one reduction per group.

    Args:
        reducer: stage 1 of a method.
        stage1: counts per unit.
        states: groups of equally large units, with everything that the method needs.
        units: the unit of each row of each group; not used by methods of scope `unit`.
    """
    if reducer.scope == "medium":
        media = gather_media(states, units)
        return scatter_media(media, [reducer(one.states, stage1) for one in media], states)
    if not getattr(reducer, "compiles", False):
        return [apply_edit(group, reducer(group, stage1)) for group in states]
    found = []
    for group in states:
        parts: dict[str, Any] = _reduced(reducer, stage1, group)
        deep = tuple(parts.pop(f"deep.{level}") for level in range(len(group.deep)))
        contextual = stage1.resolve(group.features.shape[1], cls=group.cls is not None)[1]
        found.append(Reduction(**parts, contextual=contextual, deep=deep))
    return found


@region
def _reduced(reducer: VisionReducer, stage1: Stage1, states: VisionStates) -> dict[str, Tensor]:
    """`apply_edit` of a reducer that can be compiled; of `deep`, one entry per level."""
    found = apply_edit(states, reducer(states, stage1))
    deep = {f"deep.{level}": one for level, one in enumerate(found.deep)}
    return {"features": found.features, "kept": found.kept, "assign": found.assign, "sizes": found.sizes, **deep}  # type: ignore[dict-item]


def apply_edit(states: VisionStates, edit: Edit) -> Reduction:
    """Apply an edit to a group of units, and to the features added at deeper layers."""
    given = states.projected if edit.projected else states.features
    assert given is not None
    features = edit.apply(given, None if edit.projected else states.cls)
    deep = tuple(edit.apply(one) for one in states.deep)
    return Reduction(features, edit.kept, edit.assign, edit.contextual, edit.projected, deep=deep, sizes=edit.sizes)


@dataclass(frozen=True)
class Media:
    """Pictures or videos that consist of equal units.

    Attributes:
        states: one row per medium, with the patches of its units in turn.
        groups: for each unit of a medium, its index in the list of unit states.
        rows: `[U][B]`, for each unit and medium, its row there.
    """

    states: VisionStates
    groups: list[int]
    rows: list[list[int]]


def gather_media(states: list[VisionStates], units: list[list[Unit]]) -> list[Media]:
    """Concatenate the units of each medium; media with equal units form one batch."""
    members: dict[int, list[tuple[int, int, int, tuple[int, int]]]] = {}
    roles: dict[int, str] = {}
    for group, row_units in enumerate(units):
        for row, unit in enumerate(row_units):
            members.setdefault(unit.medium, []).append((unit.order, group, row, unit.offset))
            roles[unit.medium] = {"frame": "video", "picture": "picture"}.get(unit.role, "tiles")
    alike: dict[tuple, list[list[int]]] = {}
    for medium in sorted(members):
        _, groups, rows, offsets = zip(*sorted(members[medium]), strict=True)
        alike.setdefault((roles[medium], groups, offsets), []).append(list(rows))
    found = []
    for (role, groups, offsets), media in alike.items():
        by_unit = [list(rows) for rows in zip(*media, strict=True)]
        joined = replace(_side_by_side(states, role, list(groups), by_unit), unit_offsets=offsets)
        found.append(Media(joined, list(groups), by_unit))
    return found


def _side_by_side(states: list[VisionStates], role: str, groups: list[int], rows: list[list[int]]) -> VisionStates:
    parts = list(zip((states[group] for group in groups), rows, strict=True))
    first, first_rows = parts[0]

    def patches(name: str) -> Tensor | None:
        if getattr(first, name) is None:
            return None
        return torch.cat([getattr(part, name)[row] for part, row in parts], dim=1)

    sizes = [part.features.shape[1] for part, _ in parts]
    grids = [part.grid or (1, 1, size) for (part, _), size in zip(parts, sizes, strict=True)]
    fields: dict[str, Any] = {name: patches(name) for name in PATCH_FIELDS}
    texts: dict[str, Any] = {
        name: None if getattr(first, name) is None else getattr(first, name)[first_rows] for name in TEXT_FIELDS
    }
    unit = torch.arange(len(parts)).repeat_interleave(torch.tensor(sizes))
    return VisionStates(
        **fields,
        deep=tuple(torch.cat([part.deep[level][row] for part, row in parts], 1) for level in range(len(first.deep))),
        cls=None if first.cls is None else torch.stack([part.cls[row] for part, row in parts], 1),  # type: ignore[index]
        grid=(len(parts), *grids[0][1:]) if len(set(grids)) == 1 else None,
        scores={name: torch.cat([part.scores[name][row] for part, row in parts], 1) for name in first.scores},
        **texts,
        role=role,
        unit=unit.to(first.features.device),
        unit_grids=tuple((height, width) for _, height, width in grids),
    )


def scatter_media(media: list[Media], edits: list[Edit], states: list[VisionStates]) -> list[Reduction]:
    """One reduction per group of units, from edits of whole media.

    An output belongs to the unit of the patch that it represents. A patch merged into an output of another unit counts
    as dropped in `assign`.
    """
    pieces: dict[int, dict[int, tuple[Tensor, ...]]] = {group: {} for group in range(len(states))}
    for one, edit in zip(media, edits, strict=True):
        given = one.states.projected if edit.projected else one.states.features
        assert given is not None
        streams = [*(edit.apply(features) for features in (given, *one.states.deep)), edit.sizes[..., None]]
        start = 0
        for group, rows in zip(one.groups, one.rows, strict=True):
            size = states[group].features.shape[1]
            own = _own(edit, streams, start, size)
            for number, row in enumerate(rows):
                pieces[group][row] = tuple(part[number] for part in own)
            start += size
    projected = bool(edits) and edits[0].projected
    return [_stack(pieces[group], projected) for group in range(len(states))]


def _own(edit: Edit, streams: list[Tensor], start: int, size: int) -> tuple[Tensor, ...]:
    """The reduction of one unit: kept `[B, K]`, assign `[B, size]`, and each stream of features `[B, K, D]`."""
    mine = (edit.kept >= start) & (edit.kept < start + size)
    index, real = close_gaps(mine, int(mine.sum(1).max()), left=False)
    kept = torch.where(real, edit.kept.gather(1, index) - start, NONE)
    slot = mine.long().cumsum(1) - 1
    into = edit.assign[:, start : start + size]
    inside = (into >= 0) & mine.gather(1, into.clamp_min(0))
    assign = torch.where(inside, slot.gather(1, into.clamp_min(0)), -1)
    return kept, assign, *(take(features, index) * real[..., None] for features in streams)


def _stack(rows: dict[int, tuple[Tensor, ...]], projected: bool) -> Reduction:
    """The units of a group, padded to the largest."""
    found = [rows[row] for row in range(len(rows))]
    longest = max(len(row[0]) for row in found)
    kept = torch.stack([pad(row[0], (0, longest - len(row[0])), value=NONE) for row in found])
    assign = torch.stack([row[1] for row in found])
    streams = [
        torch.stack([pad(row[number], (0, 0, 0, longest - len(row[0]))) for row in found])
        for number in range(2, len(found[0]))
    ]
    deep, sizes = tuple(streams[1:-1]), streams[-1][..., 0]
    return Reduction(streams[0], kept, assign, projected=projected, ragged=True, deep=deep, sizes=sizes)
