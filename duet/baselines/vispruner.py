"""VisPruner (ICCV 2025): the patches that CLS attends to, and from the others those that repeat no other.

Code: Theia-4869/VisPruner @ aefa01a, `llava/model/llava_arch.py::encode_images`. Released: a share of the count by CLS
attention; the other patches, most attended first, are thinned in rounds: every second one is compared with those
between, and the 8 that are most like one of them leave; those that stay are put by falling similarity before the
others, which decides who is compared with whom next. Raster order, CLS is not kept, survivors are numbered anew.

Departs: cosines in float64, because the rounds multiply every rounding (the released code in float32 and in float64
keeps other patches on one picture in five). The released code stops with an error on lists of odd length; here the
last one counts among those that may leave.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from duet.ops.gather import take
from duet.ops.select import ranked
from duet.ops.similarity import cosines

if TYPE_CHECKING:
    from torch import Tensor

#: Patches that leave per round.
PER_ROUND = 8


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
