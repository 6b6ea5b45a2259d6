"""HoloV (NeurIPS 2025): every part of the picture gets a quota, filled by CLS attention.

Code: obananas/HoloV @ 1d2e65e, `llava/model/utils.py::HoloV`. Released: 16 runs of patches in raster order (strips of
one and a half rows, not the crops in the paper's figure). A strip's score is its mean attention plus 0.09 times the
mean variance of its patches' cosines, which is first scaled to the mean attention: so the score is about 1.09 times the
attention, whatever the variance. Quotas are the floors of each strip's share; the remainder goes to the best strips,
one each. Inside a strip only attention counts. Survivors are renumbered.

Differences: output is in raster order, not ordered by attention. In the released code a quota larger than its strip
leaves zero vectors; here these places go to the most attended remaining patches. The count is the budget's, not 64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch.nn.functional import normalize

from duet.edit import Edit
from duet.ops.gather import take
from duet.ops.reduce import SCORES, allowance, check_score
from duet.ops.select import ranked
from duet.ops.similarity import exact

if TYPE_CHECKING:
    from torch import Tensor

    from duet.budget import Stage1
    from duet.types import VisionStates

#: From the released code: strips, weight of the variance, factor on the attention, and the epsilon of a quotient.
CHUNKS, ALPHA, ATTENTION_SCALE, EPSILON = 16, 0.09, 1e3, 1e-6


@torch.no_grad()
def select(
    *, keep: int, projected: Tensor, cls_attention: Tensor, num_patches: int = CHUNKS, alpha: float = ALPHA
) -> Tensor:
    """The most attended patches of each strip.

    Args:
        keep: K.
        projected: `[B, N, P]`.
        cls_attention: `[B, N]`, over heads summed or averaged.
        num_patches: number of strips (the released name).
        alpha: weight of the variance.

    Returns:
        `[B, K]` long, ascending.
    """
    tokens = projected.shape[1]
    attention = exact(cls_attention)
    strips, real, place = (part.to(projected.device) for part in _cut_into_strips(tokens, num_patches))
    mine = attention[:, strips]
    quota = _quotas(_strip_scores(exact(projected)[:, strips], mine, real, alpha), keep)
    rank = mine.masked_fill(~real, -torch.inf).argsort(dim=-1, descending=True, stable=True).argsort(-1)
    chosen = (rank < quota[..., None]).flatten(1)[:, place]
    # chosen patches first; then the most attended others, for quotas that are larger than their strips
    falling = ranked(attention, tokens)
    return take(falling, ranked(take(chosen, falling).to(attention.dtype), keep)).sort(-1).values


def _cut_into_strips(tokens: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Cut into raster runs; if the count does not divide, the first ones are one longer.

    Returns:
        patches `[C, S]` of each strip, `[C, S]` bool, False at padding, and the index `[N]` of each patch among C x S.
    """
    count = min(count, tokens)
    size, longer = divmod(tokens, count)
    starts = torch.tensor([number * size + min(number, longer) for number in range(count + 1)])
    width = size + (longer > 0)
    patches = starts[:-1, None] + torch.arange(width)
    real = patches < starts[1:, None]
    return patches.clamp_max(tokens - 1), real, torch.arange(count * width)[real.flatten()]


def _strip_scores(tokens: Tensor, attention: Tensor, real: Tensor, alpha: float) -> Tensor:
    """Score of each strip `[B, C]` from its tokens `[B, C, S, P]` and their attention `[B, C, S]`."""
    sizes = real.sum(-1)
    others = (sizes - 1).clamp_min(1)[:, None]
    unit = normalize(tokens, dim=-1) * real[..., None]
    itself = torch.eye(real.shape[1], dtype=torch.bool, device=real.device)
    like = (unit @ unit.transpose(-1, -2)).masked_fill(itself, 0)
    # as released: the diagonal counts as a cosine of 0 in the variance, but not in the number
    apart = (like - like.sum(-1, keepdim=True) / others[..., None]).square() * real[:, None]
    variance = ((apart.sum(-1) / others) * real).sum(-1) / sizes
    mean = ATTENTION_SCALE * (attention * real).sum(-1) / sizes
    return mean * (1 + alpha * variance / (variance + EPSILON))


def _quotas(scores: Tensor, keep: int) -> Tensor:
    """Places of each strip, `[B, C] -> [B, C]` long; they add up to `keep`."""
    share = scores / (scores.sum(-1, keepdim=True) + EPSILON)
    floors = (share * keep).floor().long()
    rank = share.argsort(dim=-1, descending=True, stable=True).argsort(-1)
    return floors + (rank < keep - floors.sum(-1, keepdim=True))


@dataclass(frozen=True)
class HoloV:
    """Stage 1 by `select`.

    Args:
        score: `cls_row`, or `column_mean` on towers without CLS.
        num_patches: number of strips.
        alpha: weight of the variance.
    """

    score: str = "cls_row"
    num_patches: int = CHUNKS
    alpha: float = ALPHA

    contextual: ClassVar[bool] = False
    scope: ClassVar[str] = "unit"

    def __post_init__(self) -> None:
        check_score(self.score)
        if self.num_patches < 1:
            raise ValueError(f"num_patches is {self.num_patches}; a picture has at least 1 strip")

    @property
    def needs(self) -> frozenset[str]:
        """The score row and projected features."""
        return frozenset({SCORES[self.score], "projected"})

    def __call__(self, states: VisionStates, budget: Stage1) -> Edit:
        """Keep as many patches as the budget has tokens."""
        assert states.projected is not None
        kept = select(
            keep=allowance(states, budget),
            projected=states.projected,
            cls_attention=states.scores[SCORES[self.score]],
            num_patches=self.num_patches,
            alpha=self.alpha,
        )
        return Edit.keep(kept, states.features.shape[1])
