"""From a `Trace` to patches: what is left of each picture behind each reduction, as arrays over its N patches.

Stage 1 speaks of output slots (`Reduction.assign`), stage 2 of the V visual tokens that entered the language model;
here both become maps over patches, row by row of the grid, so that they can be laid over the picture.
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
    """What one reduction left of one picture.

    Attributes:
        boundary: layers of the language model that had run; 0 for stage 1.
        before, left: visual tokens of this picture, CLS included.
        cls: whether the CLS token is among those that are left.
        clear: `[N]` bool, patches that are left as tokens of their own.
        cluster: `[N]` int, the contextual token (0, 1, ...) that a patch is merged into and that is left; -1 for none.
        anchors: `[M]` int, the patches that stand for the contextual tokens that are left.
        scores: `[N]` float, the score of the token that each patch was part of; NaN where there was none. None for
            stage 1, whose scores are not recorded.
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
    """The visual tokens of one picture that entered the language model, in their order there.

    Attributes:
        patch: `[K]`, the patch that each stands for, -1 for CLS.
        cluster: `[K]`, the number of the contextual token, -1 for others.
        of_patch: `[N]`, the token that each patch went into, -1 for none.
    """

    patch: np.ndarray
    cluster: np.ndarray
    of_patch: np.ndarray

    def left(self, boundary: int, before: int, alive: np.ndarray, scores: np.ndarray | None = None) -> Kept:
        """The maps for `alive [K]` bool, with `scores [K]` where there are some."""
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


def kept_patches(
    trace: Trace, patches: int, contextual: int = 0, *, in_place: bool = False, cls_slot: bool = False, row: int = 0
) -> list[list[Kept]]:
    """What is left of each picture of a prompt, reduction by reduction.

    Args:
        trace: of a prompt, from `duet.record`.
        patches: N of each picture.
        contextual: contextual tokens of each picture; stage 1 puts them behind the others.
        in_place: reduced tokens entered in the order of their patches, not in that of stage 1 (positions are kept).
        cls_slot: the prompt has a placeholder for CLS in front of those of the patches.
        row: of the batch.

    Returns:
        per picture, in the order of the prompt, one `Kept` per reduction.
    """
    if trace.reductions:
        pictures = [_reduced(reduction, contextual, in_place, cls_slot) for reduction in trace.reductions[row]]
    else:
        pictures = _whole(trace.entered[row], patches)
    found, first = [], 0
    for tokens in pictures:
        count = len(tokens.patch)
        everything = np.ones(count, dtype=bool)
        steps = [tokens.left(0, patches, everything)] if trace.reductions else []
        steps += _stages(trace.stages, tokens, first, row)
        found.append(steps)
        first += count
    return found


def _reduced(reduction: Reduction, contextual: int, in_place: bool, cls_slot: bool) -> _Tokens:
    patch, assign = reduction.kept[0].cpu().numpy(), reduction.assign[0].cpu().numpy()
    cluster = np.maximum(np.arange(len(patch)) - (len(patch) - contextual), -1)
    if not in_place:
        return _Tokens(patch, cluster, assign)
    # CLS goes into its own slot, else into the first one that no patch needs
    slots = patch + cls_slot
    slots[patch < 0] = np.setdiff1d(np.arange(len(assign) + 1), slots[patch >= 0])[0]
    order = np.argsort(slots)
    place = np.argsort(order)
    return _Tokens(patch[order], cluster[order], np.where(assign >= 0, place[assign], -1))


def _whole(entered: int, patches: int) -> list[_Tokens]:
    """Pictures without stage 1: all patches, behind CLS where the model takes it in, too."""
    count, rest = divmod(entered, patches)
    cls = int(rest > 0)
    count = entered // (patches + cls)
    patch = np.arange(-cls, patches)
    each = _Tokens(patch, np.full(len(patch), -1), np.arange(patches) + cls)
    return [each] * count


def _stages(stages: Sequence[StageTrace], tokens: _Tokens, first: int, row: int) -> list[Kept]:
    """The drops inside the language model, for the picture whose tokens start at `first`."""
    count, found = len(tokens.patch), []
    for stage in stages:
        alive, scores = np.zeros(count, dtype=bool), np.full(count, np.nan)
        kept, candidates = stage.kept[row].numpy(), stage.candidates[row].numpy()
        ours = (candidates >= first) & (candidates < first + count)
        alive[kept[(kept >= first) & (kept < first + count)] - first] = True
        scores[candidates[ours] - first] = stage.scores[row].float().numpy()[ours]
        found.append(tokens.left(stage.boundary, int(ours.sum()), alive, scores))
    return found
