"""How long the tokens of each patch last in a method: all of its reductions in one map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from duet.report.kept import Kept


@dataclass(frozen=True)
class Fate:
    """The fate of a unit's patches.

    Attributes:
        lasts: `[N]`, the share of the decoder's layers that the patch's token enters, its own or a merged one; 0..1.
        level: `[N]` int, the same number for unmerged patches that last equally long; -1 for merged ones and those
            dropped at once.
        cluster: `[N]` int, the contextual token that a patch is merged into before the language model; -1 for none.
        anchors: `[M]` int, the anchor patches of these.
    """

    lasts: np.ndarray
    level: np.ndarray
    cluster: np.ndarray
    anchors: np.ndarray


def fate(steps: Sequence[Kept], patches: int, depth: int) -> Fate:
    """Put the reductions of a unit together.

    Args:
        steps: in order (`duet.report.kept`); none where all tokens are kept.
        patches: N.
        depth: decoder layers.
    """
    first = steps[0] if steps and steps[0].boundary == 0 else None
    alive = np.ones(patches, dtype=bool) if first is None else first.clear | (first.cluster >= 0)
    cluster = np.full(patches, -1) if first is None else first.cluster
    lasts, since = np.zeros(patches), 0
    for step in [*steps, None]:
        until = depth if step is None else step.boundary
        lasts += alive * (until - since) / depth
        since = until
        if step is not None:
            alive = step.clear | (step.cluster >= 0)
    return Fate(
        lasts=lasts,
        level=np.where((lasts > 0) & (cluster < 0), np.unique(lasts.round(9), return_inverse=True)[1], -1),
        cluster=cluster,
        anchors=np.zeros(0, dtype=int) if first is None else first.anchors,
    )
