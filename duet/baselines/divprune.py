"""DivPrune (CVPR 2025): the patches that are least like each other (max-min diversity).

Code: vbdi/divprune @ 799e2d9, `LLaVA/llava/model/llava_arch.py::DivPrune`. Released: farthest point on 1 - cosine of
projected features, starting with the patch farthest from its nearest neighbour; picks are sorted. It runs on what lies
in the prompt, so all crops of a picture are one set; survivors are numbered anew.

Departs: LLaVA-NeXT's newline tokens, which the released code may drop like patches, are not candidates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from duet.ops.greedy import Spread, everyone, greedy
from duet.ops.similarity import cosines

if TYPE_CHECKING:
    from torch import Tensor


def select(*, keep: int, projected: Tensor) -> Tensor:
    """The most diverse patches.

    Args:
        keep: K.
        projected: `[B, N, P]`.

    Returns:
        `[B, K]` long, ascending.
    """
    return order(keep=keep, projected=projected).sort(-1).values


def order(*, keep: int, projected: Tensor) -> Tensor:
    """The same patches in the order of picking, `[B, K]`."""
    return greedy(Spread(cosines(projected)), keep, everyone(projected))
