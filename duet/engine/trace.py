"""`duet.record`: record which tokens were kept at each stage, and which text tokens voted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from duet.types import Placement, Reduction, StageTrace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class Trace:
    """The record of the latest prompt with pictures or videos.

    Attributes:
        reductions: per row, one `Reduction` per picture, crop or frame (batch dimension 1); empty without stage 1.
        stages: the drops inside the language model, in order; boundaries at which no row loses a token are left out.
        full: per row, the number of visual tokens without compression.
        entered: per row, the number V of visual tokens that entered the language model.
        origins: per row, `[V, 2]` long, the unit (in prompt order) of each of them, and its index in the unit's
            `Reduction.kept`; without stage 1 the patch, -1 for CLS.
        columns: per row, `[V]` long, the prompt column of each of them.
        lengths: boundary -> tokens of each row, text included, that enter the layers after it.
        absences: runs of layers of text alone, as of `duet.engine.call.Compression`.
    """

    def __init__(self) -> None:
        self.reductions: list[list[Reduction]] = []
        self.stages: list[StageTrace] = []
        self.full: list[int] = []
        self.entered: list[int] = []
        self.origins: list[Tensor] = []
        self.columns: list[Tensor] = []
        self.lengths: dict[int, list[int]] = {}
        self.absences: tuple[tuple[int, int], ...] = ()

    def clear(self) -> None:
        """Forget the previous prompt."""
        self.__init__()  # type: ignore[misc]

    def counts(self, row: int = 0) -> dict[int, int]:
        """Boundary -> visual tokens of a row after it; 0 is the input of the language model."""
        found = {0: self.entered[row], **{stage.boundary: len(stage.kept[row]) for stage in self.stages}}
        for _, end in self.absences:
            found[end] = next(found[layer] for layer in sorted(found, reverse=True) if layer <= end)
        return dict(sorted({**found, **{start: 0 for start, _ in self.absences}}.items()))

    @property
    def reduced(self) -> list[int]:
        """Boundaries at which visual tokens were reduced: the entry after a stage 1, and the drops."""
        entry = next((end for start, end in self.absences if start == 0), 0)
        return [*([entry] if self.reductions else []), *(stage.boundary for stage in self.stages)]

    def enter(self, placement: Placement, reductions: list[Reduction] | None) -> None:
        """Record the input of the language model, with reductions sorted by prompt row."""
        layout = placement.layout
        separators = layout.filled & ~layout.visual
        self.full = (layout.placeholder & ~separators).sum(1).tolist()
        self.entered = layout.visual.sum(1).tolist()
        self.origins = _origins(placement)
        self.columns = [row.nonzero().flatten() for row in layout.visual.cpu()]
        if reductions is not None:
            self.reductions = [[reductions[group].row(index) for group, index in row] for row in layout.units]

    def enter_again(self, rows: Sequence[Trace | None], starts: Sequence[int]) -> None:
        """Record the input of the language model from the traces of pictures that were read before.

        Args:
            rows: of each row, None without pictures.
            starts: prompt column of each row's first token.
        """
        found = [Trace() if row is None else row for row in rows]
        nothing = torch.zeros(0, 2, dtype=torch.long)
        self.full = [sum(row.full) for row in found]
        self.entered = [sum(row.entered) for row in found]
        self.origins = [row.origins[0] if row.origins else nothing for row in found]
        pairs = zip(found, starts, strict=True)
        self.columns = [row.columns[0] + start if row.columns else nothing[:, 0] for row, start in pairs]
        if any(row.reductions for row in found):
            self.reductions = [row.reductions[0] if row.reductions else [] for row in found]

    def add_stage(
        self,
        boundary: int,
        keep: Tensor,
        candidates: Tensor,
        scores: Tensor,
        voters: Tensor,
        columns: Tensor,
        entered: Tensor,
    ) -> None:
        """Record one drop.

        Args:
            boundary: layers that had run.
            keep: `[B, T]` bool, candidates: `[B, T]` bool, scores: `[B, T]`, voters: `[B, T]` bool over the tokens.
            columns: `[B, T]` prompt column of each token.
            entered: `[B, T0]` bool, prompt columns of the visual tokens that entered the language model.
        """
        number = (entered.long().cumsum(1) - 1).to(columns.device).gather(1, columns)
        rows = range(len(keep))
        # a merged token may follow tokens with larger numbers than its own
        found = [number[b][candidates[b]].sort() for b in rows]
        self.stages.append(
            StageTrace(
                boundary=boundary,
                kept=[number[b][keep[b]].sort().values.cpu() for b in rows],
                candidates=[one.values.cpu() for one in found],
                scores=[scores[b][candidates[b]][found[b].indices].cpu() for b in rows],
                voters=[columns[b][voters[b]].cpu() for b in rows],
            )
        )


def _origins(placement: Placement) -> list[Tensor]:
    """Per row, `(unit of the row, token)` of each visual token."""
    layout = placement.layout
    origin = torch.full((*layout.visual.shape, 3), -1)
    for part in placement.parts:
        if part.origin is not None:
            origin[part.mask.cpu()] = part.origin.cpu()
    found = []
    for row, visual, units in zip(origin, layout.visual.cpu(), layout.units, strict=True):
        number = {unit: place for place, unit in enumerate(units)}
        pairs = [(number[group, index], token) for group, index, token in row[visual].tolist()]
        found.append(torch.tensor(pairs, dtype=torch.long).reshape(-1, 2))
    return found
