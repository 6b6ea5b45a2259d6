"""FitPrune (AAAI 2025): after each layer a fitted number of visual tokens leaves, those that nobody attends to.

ywh187/FitPrune @ d28e418, `modeling_llama.py` and `eval/statistical_analysis.py`. The attention map of every layer is
reduced to its maximum over heads. A visual token's score is what it gets from visual tokens times what it gets from the
text after the picture; the lowest leave. How many is in a table (`DELETED`), fitted for LLaVA-1.5-7B to the wanted
saving of operations. Survivors keep their position ids.

Departures:

* The released code removes tokens inside a layer, before the output projection of its attention, so that the MLP runs
  without them. Here they leave after the layer.
* Backbones of another depth or with other numbers of tokens get the table as a curve over the depth (`schedule`).
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

import torch

from duet.ops.select import top_and_rest
from duet.ops.similarity import exact

if TYPE_CHECKING:
    from torch import Tensor

#: Visual tokens and layers of the model that the tables were made for.
TABLE_TOKENS, TABLE_LAYERS = 576, 32
#: Saving in percent -> visual tokens (of 576) that each of 32 layers deletes; the released presets.
# fmt: off
DELETED: dict[int, tuple[int, ...]] = {
    10: (
        0, 0, 1, 2, 1, 0, 1, 4, 5, 5, 11, 4, 2, 2, 0, 0,
        1, 1, 2, 4, 2, 10, 1, 1, 1, 2, 1, 1, 0, 1, 0, 0,
    ),
    20: (
        0, 0, 3, 3, 1, 1, 4, 16, 14, 15, 24, 4, 2, 3, 2, 0,
        6, 0, 5, 13, 4, 19, 2, 1, 1, 1, 1, 1, 2, 1, 0, 0,
    ),
    30: (
        0, 0, 7, 6, 4, 5, 16, 40, 24, 21, 24, 4, 2, 3, 4, 0,
        16, 0, 11, 26, 6, 32, 3, 1, 0, 1, 2, 2, 4, 0, 0, 0,
    ),
    40: (
        0, 1, 21, 13, 14, 11, 41, 53, 29, 15, 14, 5, 1, 4, 5, 1,
        26, 1, 13, 28, 6, 27, 2, 1, 0, 0, 1, 1, 2, 0, 0, 0,
    ),
    50: (
        3, 7, 49, 24, 29, 17, 59, 41, 26, 8, 10, 6, 2, 5, 7, 2,
        30, 3, 13, 27, 5, 23, 2, 1, 0, 0, 1, 1, 2, 0, 0, 0,
    ),
    55: (
        6, 17, 69, 31, 34, 19, 59, 30, 23, 6, 8, 7, 2, 5, 8, 2,
        29, 4, 12, 25, 4, 19, 2, 1, 0, 0, 1, 0, 1, 0, 0, 0,
    ),
    60: (
        14, 33, 89, 36, 36, 20, 55, 21, 18, 4, 7, 5, 2, 5, 7, 4,
        26, 5, 11, 24, 4, 18, 2, 1, 0, 0, 1, 0, 1, 0, 0, 0,
    ),
    70: (
        48, 79, 118, 41, 33, 17, 36, 9, 9, 2, 3, 2, 1, 3, 4, 8,
        18, 7, 8, 20, 4, 13, 2, 1, 0, 0, 1, 0, 1, 0, 0, 0,
    ),
    80: (
        128, 127, 118, 35, 26, 8, 13, 3, 2, 1, 0, 0, 0, 2, 1, 8,
        7, 8, 5, 11, 2, 6, 1, 1, 0, 0, 0, 1, 0, 0, 0, 0,
    ),
    90: (
        262, 153, 80, 19, 13, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 1,
        1, 2, 1, 2, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0,
    ),
}
# fmt: on


def select(*, keep: int, self_attention: Tensor, cross_attention: Tensor) -> Tensor:
    """The visual tokens with the largest product of attention from the picture and from the text.

    Args:
        keep: how many stay.
        self_attention: `[B, H, N, N]` probabilities of the visual tokens over each other.
        cross_attention: `[B, H, T, N]` of the text after the picture over the visual tokens; same layer.

    Returns:
        `[B, keep]` ascending.
    """
    from_visual = exact(self_attention).amax(1).mean(1)
    from_text = exact(cross_attention).amax(1).sum(1)
    return top_and_rest(from_visual * from_text, keep)[0]


def deletable(*, from_visual: Tensor, from_text: Tensor, tolerance: float) -> Tensor:
    """What the fit would delete in one layer: tokens that hardly anybody attends to, neither picture nor text.

    Of each statistic the smallest entries may go that together hold less than `tolerance` of its sum (the released code
    spares one more than that); a token leaves when both let it go. The tables come from running this layer by layer,
    and from halving the interval of the tolerance until the wanted operations are saved.

    Args:
        from_visual: `[B, N]` attention that each visual token gets from the visual tokens, maximum over heads.
        from_text: `[B, N]` from the text.
        tolerance: the paper's alpha, in [0, 1].

    Returns:
        `[B, N]` bool.
    """
    return _spent(from_visual, tolerance) & _spent(from_text, tolerance)


def _spent(received: Tensor, tolerance: float) -> Tensor:
    values, order = exact(received).sort(dim=-1, stable=True)
    total = values.sum(-1, keepdim=True)
    gone = torch.cat([torch.zeros_like(total), values.cumsum(-1)[:, :-1]], dim=-1)
    fits = total - gone >= total * (1 - tolerance)
    count = (fits.sum(-1, keepdim=True) - 1).clamp_min(0)
    places = torch.arange(values.shape[1], device=values.device).expand_as(order)
    return torch.zeros_like(order, dtype=torch.bool).scatter(1, order, places < count)


def left_after(percent: int) -> list[int]:
    """Visual tokens that are left after each layer of LLaVA-1.5-7B under a released preset."""
    return [TABLE_TOKENS - gone for gone in accumulate(DELETED[percent])]
