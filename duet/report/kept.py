"""From a `Trace` to patches: what is left of each unit (picture, crop, frame) after each reduction, over its patches.

Stage 1 uses output slots (`Reduction.assign`), stage 2 the V visual tokens that entered the language model; here both
become maps over the N patches of a unit, row by row, to be drawn over the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from duet.engine.trace import Trace
    from duet.types import Reduction, StageTrace


@dataclass(frozen=True)
class Kept:
    """One unit after one reduction.

    Attributes:
        boundary: number of language model layers before it; 0 for stage 1.
        before, left: visual tokens of this unit; before stage 1, its patches.
        cls: whether the CLS token is left.
        clear: `[N]` bool, patches left as their own tokens.
        cluster: `[N]` int, the remaining contextual token (0, 1, ...) that a patch is merged into; -1 for none.
        anchors: `[M]` int, the anchor patches of the remaining contextual tokens.
        scores: `[N]` float, the score of each patch's token; NaN if it had none. None for stage 1, whose scores are not
            recorded.
    """

    boundary: int
    before: int
    left: int
    cls: bool
    clear: np.ndarray
    cluster: np.ndarray
    anchors: np.ndarray
    scores: np.ndarray | None = None


@dataclass(frozen=True)
class _Tokens:
    """The visual tokens of one unit that entered the language model, in order.

    Attributes:
        number: `[K]`, index among the V of the row.
        patch: `[K]`, its patch, -1 for CLS.
        cluster: `[K]`, the number of the contextual token, -1 for others.
        of_patch: `[N]`, the token that each patch went into, -1 for none.
    """

    number: np.ndarray
    patch: np.ndarray
    cluster: np.ndarray
    of_patch: np.ndarray

    def left(self, boundary: int, before: int, alive: np.ndarray, scores: np.ndarray | None = None) -> Kept:
        """The maps for `alive [K]` bool, with `scores [K]` if given."""
        inside = self.of_patch >= 0
        cluster = np.where(inside & alive[self.of_patch], self.cluster[self.of_patch], -1)
        return Kept(
            boundary=boundary,
            before=before,
            left=int(alive.sum()),
            cls=bool((alive & (self.patch < 0)).any()),
            clear=inside & alive[self.of_patch] & (self.cluster[self.of_patch] < 0),
            cluster=cluster,
            anchors=self.patch[alive & (self.cluster >= 0)],
            scores=None if scores is None else np.where(inside, scores[self.of_patch], np.nan),
        )


def kept_patches(trace: Trace, patches: Sequence[int], row: int = 0) -> list[list[Kept]]:
    """What is left of each unit of a prompt, reduction by reduction.

    Args:
        trace: of a prompt, from `duet.record`.
        patches: N of each unit, in the order of the prompt.
        row: of the batch.

    Returns:
        per unit, in the order of the prompt, one `Kept` per reduction.
    """
    origins = trace.origins[row].numpy()
    found = []
    for unit, count in enumerate(patches):
        reduction = trace.reductions[row][unit] if trace.reductions else None
        tokens = _tokens(origins, unit, count, reduction)
        steps = [tokens.left(0, count, np.ones(len(tokens.patch), dtype=bool))] if reduction else []
        for stage in trace.stages:
            before = steps[-1].left if steps else len(tokens.patch)
            steps.append(_drop(stage, tokens, before, len(origins), row))
        found.append(steps)
    return found


def _tokens(origins: np.ndarray, unit: int, patches: int, reduction: Reduction | None) -> _Tokens:
    number = (origins[:, 0] == unit).nonzero()[0]
    token = origins[number, 1]
    if reduction is None:  # all patches, and CLS if the model uses it
        of_patch = np.full(patches, -1)
        of_patch[token[token >= 0]] = (token >= 0).nonzero()[0]
        return _Tokens(number, token, np.full(len(token), -1), of_patch)
    kept, assign = reduction.kept[0].cpu().numpy(), reduction.assign[0].cpu().numpy()
    # a token that others were merged into counts as merged, even without contextual tokens
    merged = np.bincount(assign[assign >= 0], minlength=len(kept)) > 1
    merged[len(kept) - reduction.contextual :] = True
    cluster = np.where(merged, merged.cumsum() - 1, -1)[token]
    place = token.argsort()  # of each output token among those that entered
    return _Tokens(number, kept[token], cluster, np.where(assign >= 0, place[assign], -1))


def _drop(stage: StageTrace, tokens: _Tokens, before: int, entered: int, row: int) -> Kept:
    """A drop inside the language model, for one unit."""
    alive, scores = np.zeros(entered, dtype=bool), np.full(entered, np.nan)
    alive[stage.kept[row].numpy()] = True
    scores[stage.candidates[row].numpy()] = stage.scores[row].float().numpy()
    return tokens.left(stage.boundary, before, alive[tokens.number], scores[tokens.number])
