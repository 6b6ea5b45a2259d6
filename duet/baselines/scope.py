"""SCOPE (NeurIPS 2025): cover the picture with few patches, weighted by the attention of CLS.

Code: kinredon/SCOPE @ 6bf7306, `scope/clip_encoder.py::SCOPE`. Released: greedy on tower features. A patch's gain is
its increase in similarity to all patches over the best pick so far (negative cosines never count), times its CLS
attention, summed over heads, to the power alpha. CLS is not kept; survivors stay in raster order and are renumbered.

Differences: computed in float32; the released code runs in the model's half precision. The paper's use inside the
language model is neither in the released code nor here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from duet.edit import Edit
from duet.ops.coverage import patches_covered
from duet.ops.greedy import Coverage, everyone, greedy
from duet.ops.reduce import SCORES, allowance, check_score
from duet.ops.similarity import exact

if TYPE_CHECKING:
    from torch import Tensor

    from duet.budget import Stage1
    from duet.types import VisionStates


@torch.no_grad()
def select(*, keep: int, features: Tensor, cls_attention: Tensor, alpha: float = 1.0) -> Tensor:
    """The patches that cover the picture best, weighted by saliency.

    Args:
        keep: K.
        features: `[B, N, D]` of the tower.
        cls_attention: `[B, N]`, sum over heads.
        alpha: exponent of the attention; 0 for coverage alone.

    Returns:
        `[B, K]` long, ascending.
    """
    return order(keep=keep, features=features, cls_attention=cls_attention, alpha=alpha).sort(-1).values


@torch.no_grad()
def order(*, keep: int, features: Tensor, cls_attention: Tensor, alpha: float = 1.0) -> Tensor:
    """The same patches in the order of picking, `[B, K]`."""
    weight = exact(cls_attention) ** alpha
    return greedy(Coverage(patches_covered(features), weight), keep, everyone(features))


@dataclass(frozen=True)
class Scope:
    """Stage 1 by `select`.

    Args:
        score: `cls_row`, or `column_mean` on towers without CLS.
        alpha: exponent of the attention.
    """

    score: str = "cls_row"
    alpha: float = 1.0

    contextual: ClassVar[bool] = False
    scope: ClassVar[str] = "unit"

    def __post_init__(self) -> None:
        check_score(self.score)

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
            alpha=self.alpha,
        )
        return Edit.keep(kept, states.features.shape[1])
