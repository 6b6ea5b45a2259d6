"""VisPruner (ICCV 2025): the patches that CLS attends to, and from the others those without near duplicates.

Code: Theia-4869/VisPruner @ aefa01a, `llava/model/llava_arch.py::encode_images`. Released: a share of the count by CLS
attention. The other patches, most attended first, are thinned in rounds: every second patch is compared with those
between, and the 8 most similar ones are dropped. Those that stay move before the others, most similar first, which sets
the comparisons of the next round. Raster order, CLS is not kept, survivors are renumbered.

Differences: cosines are in float64, because the rounds amplify rounding errors: the released code often keeps different
patches in float32 and in float64. The released code fails on lists of odd length; here the last patch of the list is
among those that may be dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from duet.edit import Edit
from duet.ops.gather import take
from duet.ops.reduce import SCORES, allowance, check_score
from duet.ops.select import ranked
from duet.ops.similarity import cosines

if TYPE_CHECKING:
    from torch import Tensor

    from duet.budget import Stage1
    from duet.types import VisionStates

#: Patches dropped per round.
PER_ROUND = 8


@torch.no_grad()
def select(*, keep: int, features: Tensor, cls_attention: Tensor, important_ratio: float = 0.5) -> Tensor:
    """The most attended patches, and a thinned set of the others.

    Args:
        keep: K.
        features: `[B, N, D]` of the tower.
        cls_attention: `[B, N]`, over heads summed or averaged.
        important_ratio: share of K by attention (0.5; its README advises 0.75 for MME at 64 tokens).

    Returns:
        `[B, K]` long, ascending.
    """
    important = int(keep * important_ratio)
    falling = ranked(cls_attention, cls_attention.shape[1])
    wide = torch.float32 if features.device.type == "mps" else torch.float64
    rest = _thin_out(cosines(features.to(wide)), falling[:, important:], keep - important)
    return torch.cat([falling[:, :important], rest], 1).sort(-1).values


def _thin_out(similarity: Tensor, listed: Tensor, count: int) -> Tensor:
    """Shorten a list of patches `[B, R]` to `count`, round by round."""
    while listed.shape[1] > count:
        mine, others = listed[:, ::2], listed[:, 1::2]
        leave = min(PER_ROUND, listed.shape[1] - count, mine.shape[1])
        if others.shape[1]:
            between = take(similarity, mine).gather(2, others[:, None].expand(-1, mine.shape[1], -1))
            mine = take(mine, ranked(between.amax(-1), mine.shape[1]))
        listed = torch.cat([mine[:, leave:], others], 1)
    return listed


@dataclass(frozen=True)
class VisPruner:
    """Stage 1 by `select`.

    Args:
        score: `cls_row`, or `column_mean` on towers without CLS.
        important_ratio: share of the count by attention.
    """

    score: str = "cls_row"
    important_ratio: float = 0.5

    contextual: ClassVar[bool] = False
    scope: ClassVar[str] = "unit"

    def __post_init__(self) -> None:
        check_score(self.score)
        if not 0 <= self.important_ratio <= 1:
            raise ValueError(f"important_ratio is {self.important_ratio}; it is a share, from 0 to 1")

    @property
    def needs(self) -> frozenset[str]:
        """The score row."""
        return frozenset({SCORES[self.score]})

    def __call__(self, states: VisionStates, budget: Stage1) -> Edit:
        """Keep as many patches as the budget has tokens."""
        kept = select(
            keep=allowance(states, budget),
            features=states.features,
            cls_attention=states.scores[SCORES[self.score]],
            important_ratio=self.important_ratio,
        )
        return Edit.keep(kept, states.features.shape[1])
