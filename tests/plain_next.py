"""A LLaVA-NeXT prompt in embeddings, the slow way: one patch at a time, its place worked out from the picture's size.

For `tests.plain_duet.run(embed=...)`; shares no line with `duet/llava/anyres.py` and `duet/llava/next_adapter.py`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from tests.plain_duet import Embedder, Plan, look
from tests.plain_stage1 import CLS, RULES, Picture, Reduced
from tests.tiny_llava_next import Row


def embedder(newlines: str = "keep") -> Embedder:
    """For rows of `tests.tiny_llava_next`."""
    return partial(_embed, newlines=newlines)


def stitched(
    size: tuple[int, int], pinpoints: list[list[int]], crop: int, side: int
) -> list[list[tuple[int, int, int]]]:
    """Rows of `(tile, row, column)`, each patch of the picture after unpadding; tiles count from 1."""
    (height, width), (high, wide) = size, _best_resolution(size, pinpoints)
    rows, columns = high // crop * side, wide // crop * side
    skip_rows = skip_columns = 0
    if width / height > columns / rows:
        skip_rows = (rows - int(round(height * columns / width, 7))) // 2
    else:
        skip_columns = (columns - int(round(width * rows / height, 7))) // 2
    return [
        [(row // side * (columns // side) + column // side + 1, row % side, column % side)
         for column in range(skip_columns, columns - skip_columns)]
        for row in range(skip_rows, rows - skip_rows)
    ]  # fmt: skip


def tiles(model: Any, size: tuple[int, int], crops: Tensor) -> int:
    """Tiles of a picture that are not padding alone."""
    config = model.config
    crop, side = config.vision_config.image_size, config.vision_config.image_size // config.vision_config.patch_size
    rows = stitched(size, config.image_grid_pinpoints, crop, side) if len(crops) > 1 else []
    return len({tile for row in rows for tile, _, _ in row})


def _best_resolution(size: tuple[int, int], pinpoints: list[list[int]]) -> tuple[int, int]:
    """The one that the picture fills with most of its own pixels; of those, the one with the least padding."""
    height, width = size

    def merit(high: int, wide: int) -> tuple[int, int]:
        scale = min(high / height, wide / width)
        useful = min(int(height * scale) * int(width * scale), height * width)
        return useful, useful - high * wide

    high, wide = max(pinpoints, key=lambda point: merit(*point))
    return high, wide


def _embed(model: Any, row: Row, plan: Plan, visual: list[int], newlines: str) -> tuple[Tensor, list[int], list[int]]:
    cells: dict[int, Tensor] = dict(enumerate(model.get_input_embeddings()(row.ids)))
    separators, at = [], 0
    for size, crops in zip(row.sizes, row.crops, strict=True):
        tokens, ends, slots, length = _see(model, size, crops, plan, newlines)
        own = visual[at : at + length]
        at += length
        for column in own:
            del cells[column]
        cells |= {own[slot]: token for slot, token in zip(slots, tokens, strict=True)}
        separators += [own[slot] for slot, end in zip(slots, ends, strict=True) if end]
    assert at == len(visual)
    return torch.stack([cells[column] for column in sorted(cells)]), sorted(cells), separators


def _see(
    model: Any, size: tuple[int, int], crops: Tensor, plan: Plan, newlines: str
) -> tuple[list[Tensor], list[bool], list[int], int]:
    """Tokens of a picture in their order, which are newlines, their slots, and how many slots there are."""
    config = model.config
    crop, side = config.vision_config.image_size, config.vision_config.image_size // config.vision_config.patch_size
    rows: list[Any] = stitched(size, config.image_grid_pinpoints, crop, side) if len(crops) > 1 else [[]]
    # each slot in order: (crop, row, column), or None for a newline
    slots: list[tuple[int, int, int] | None] = [(0, row, column) for row in range(side) for column in range(side)]
    for line in rows:
        slots += [*line, None]
    project = model.model.multi_modal_projector
    newline = model.model.image_newline
    if plan.merge is None:
        seen = [look(model, pixels)[0][1:] for pixels in crops]
        found = [newline if slot is None else project(seen[slot[0]][slot[1] * side + slot[2]]) for slot in slots]
        return found, [slot is None for slot in slots], list(range(len(slots))), len(slots)
    kept = newlines == "keep" or len(crops) == 1
    entries: list[tuple[Any, Any, bool]] = []  # order, feature, newline
    reduced = [_reduce(model, crops[number], [s[1] * side + s[2] for s in slots if s and s[0] == number], plan)
               for number in range(len(crops))]  # fmt: skip
    for number, one in enumerate(reduced):
        first = len(one.kept) - _capped(plan, len(one.patches))[1] if one.patches else 0
        cell = {patch: slots.index((number, *divmod(patch, side))) for patch in one.patches}
        taken = [cell[patch] for patch in one.kept if patch != CLS]
        free = next((cell[patch] for patch in one.patches if cell[patch] not in taken), None)
        for place, (patch, feature) in enumerate(zip(one.kept, one.features, strict=True)):
            if not plan.renumber:
                order: tuple[int, ...] = (free if patch == CLS else cell[patch],)
            elif number == 0:
                order = (0, place)
            elif patch == CLS:
                order = (2, number)
            else:
                order = (3, number, place) if place >= first else (1, cell[patch])
            entries.append((order, project(feature), False))
    for slot, what in enumerate(slots):
        if what is None and kept:
            entries.append(((1, slot) if plan.renumber else (slot,), newline, True))
    entries.sort(key=lambda entry: entry[0])
    filled = list(range(len(entries))) if plan.renumber else [order[0] for order, _, _ in entries]
    return [feature for _, feature, _ in entries], [end for *_, end in entries], filled, len(slots)


class _Cut(Reduced):
    """A reduced crop whose patches are numbered as in the whole crop; `patches`: those that are no padding."""

    patches: list[int]


def _capped(plan: Plan, patches: int) -> tuple[int, int]:
    dominant = min(plan.dominant, max(1, patches - (plan.contextual > 0)))
    return dominant, min(plan.contextual, patches - dominant)


def _reduce(model: Any, pixels: Tensor, patches: list[int], plan: Plan) -> _Cut:
    if not patches:
        none = _Cut([], [], [])
        none.patches = []
        return none
    states, maps, keys = look(model, pixels)
    others = [patch for patch in range(len(states) - 1) if patch not in patches]
    columns = [0, *(patch + 1 for patch in patches)]
    # padding attends to the picture, too, but is not attended to
    attention = torch.cat([maps.sum(0)[:1], maps.mean(0)[1:]]) if plan.score == "cls_row" else maps.mean(0)
    attention = attention[[*columns, *(patch + 1 for patch in others)]][:, columns]
    picture = Picture(states[1:][patches], states[0], keys[patches], attention)
    reduced = RULES[plan.merge or ""](picture, *_capped(plan, len(patches)), plan.width, plan.score)
    found = _Cut(reduced.features, [CLS if one == CLS else patches[one] for one in reduced.kept], reduced.merged)
    found.patches = patches
    return found
