"""FitPrune (AAAI 2025): after each layer, drop a fitted number of visual tokens, those with the least attention.

ywh187/FitPrune @ d28e418, `modeling_llama.py` and `eval/statistical_analysis.py`. The attention map of every layer is
reduced to its maximum over heads. A visual token's score is the attention from visual tokens times the attention from
the text after the picture; the lowest are dropped. A table gives their number (`FITPRUNE` in
`duet/budget/schedules.py`), fitted for LLaVA-1.5-7B to a given saving of operations. Survivors keep their position ids.

Differences:

* The released code removes tokens inside a layer, before the output projection of its attention, so the MLP runs
  without them. Here they are dropped after the layer.
* For backbones with another depth or other numbers of tokens, the table is used as a curve over the depth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from duet.ops.select import top_and_rest
from duet.ops.similarity import exact

if TYPE_CHECKING:
    from torch import Tensor

    from duet.types import LayerView

#: Query rows of an attention map processed together.
CHUNK = 1024


def select(*, keep: int, self_attention: Tensor, cross_attention: Tensor) -> Tensor:
    """The visual tokens with the largest product of attention from the picture and from the text.

    Args:
        keep: number of tokens to keep.
        self_attention: `[B, H, N, N]` probabilities of the visual tokens over each other.
        cross_attention: `[B, H, T, N]` of the text after the picture over the visual tokens; same layer.

    Returns:
        `[B, keep]` ascending.
    """
    from_visual = exact(self_attention).amax(1).mean(1)
    from_text = exact(cross_attention).amax(1).sum(1)
    return top_and_rest(from_visual * from_text, keep)[0]


def deletable(*, from_visual: Tensor, from_text: Tensor, tolerance: float) -> Tensor:
    """The tokens that the fit would delete in one layer: those with hardly any attention from picture or text.

    For each statistic, the smallest entries that together hold less than `tolerance` of its sum may go (the released
    code spares one more); a token is deleted if both statistics allow it. The tables come from running this layer by
    layer, with a bisection over the tolerance until the wanted operations are saved.

    Args:
        from_visual: `[B, N]` attention of each visual token from the visual tokens, maximum over heads.
        from_text: `[B, N]`, from the text.
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


@dataclass(frozen=True)
class FitPrune:
    """Rank visual tokens by their attention from the picture and from the text, in the previous layer."""

    needs: ClassVar[frozenset[str]] = frozenset()
    layer: ClassVar[str] = "previous"
    compiles: ClassVar[bool] = True

    def score(self, view: LayerView) -> tuple[Tensor, Tensor]:
        """`[B, T]` product of both, and the text after the picture."""
        from_visual, from_text = (_received(view, voters) for voters in (view.visual, view.text))
        return from_visual / view.visual.sum(1, keepdim=True).clamp_min(1) * from_text, view.text


def _received(view: LayerView, voters: Tensor) -> Tensor:
    """`[B, T]`: sum over the voters of the maximum over heads."""
    parts = []
    places = torch.arange(voters.shape[1], device=voters.device)
    for start in range(0, voters.shape[1], CHUNK):
        rows = view.attention(voters & (places >= start) & (places < start + CHUNK), heads="max")
        parts.append((rows.probabilities * rows.real[..., None]).sum(1))
    return torch.stack(parts).sum(0)
