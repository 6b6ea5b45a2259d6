"""DivPrune (CVPR 2025): the patches that are least similar to each other (max-min diversity).

Code: vbdi/divprune @ 799e2d9, `LLaVA/llava/model/llava_arch.py::DivPrune`. Released: farthest point on 1 - cosine of
projected features, starting with the patch farthest from its nearest neighbour; picks are sorted. It runs on the visual
tokens of the prompt, so all crops of a picture are one set; survivors are renumbered.

Difference: LLaVA-NeXT's newline tokens, which the released code may drop like patches, are not candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from duet.edit import Edit
from duet.ops.greedy import Spread, everyone, greedy
from duet.ops.reduce import allowance

if TYPE_CHECKING:
    from torch import Tensor

    from duet.budget import Stage1
    from duet.types import VisionStates


@torch.no_grad()
def select(*, keep: int, projected: Tensor) -> Tensor:
    """The most diverse patches.

    Args:
        keep: K.
        projected: `[B, N, P]`.

    Returns:
        `[B, K]` long, ascending.
    """
    return order(keep=keep, projected=projected).sort(-1).values


@torch.no_grad()
def order(*, keep: int, projected: Tensor) -> Tensor:
    """The same patches in the order of picking, `[B, K]`."""
    return greedy(Spread(projected), keep, everyone(projected))


@dataclass(frozen=True)
class DivPrune:
    """Stage 1 by `select`, over all crops of a picture or frames of a video together."""

    needs: ClassVar[frozenset[str]] = frozenset({"projected"})
    contextual: ClassVar[bool] = False
    scope: ClassVar[str] = "medium"

    def __call__(self, states: VisionStates, budget: Stage1) -> Edit:
        """Keep as many patches as the budget has tokens for all units."""
        assert states.projected is not None
        kept = select(keep=allowance(states, budget), projected=states.projected)
        return Edit.keep(kept, states.features.shape[1])
