"""VidCom2 (Liu et al., EMNLP 2025): keep the tokens least similar to their frame and video, more in uncommon frames.

Code: xuyang-liu16/VidCom2 @ 944a17d, `token_compressor/vidcom2/vidcom2.py`. On the projected features of a clip:

1. Keep the half of the channels that varies least over the clip, and normalise tokens in them.
2. Similarity to a centre is a sum of five Gaussians of the distance; the centres are the means of the video and of each
   frame.
3. A frame's share of the rate is `1 + p - mean p`, with p a softmax over frames of their negated mean similarity to the
   video.
4. In each frame the tokens with the smallest sum of both similarities stay, in raster order. Nothing is merged.

The released code rounds every frame's count, to at least 1, so its total misses the budget (301 for 300). Here the
total is exact: frames get their n-th token as the rate grows, until the total is reached (`duet.ops.frames.allot`). At
totals that the released code can reach, the counts are the same; `released_keep` computes them. Fewer tokens than
frames, which the released code does not allow, go one each to the most uncommon frames. A picture is a clip of one
frame, its crops included; the released code does not compress pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from duet.edit import Edit
from duet.ops.frames import allot, by_frame, clips, numbers
from duet.ops.reduce import allowance
from duet.ops.select import keep_best, ranked

if TYPE_CHECKING:
    from duet.budget import Stage1
    from duet.types import VisionStates

#: Share of the channels that are compared.
CHANNELS = 0.5
#: Temperature of the softmax over frames.
TEMPERATURE = 0.01
#: Widths of the Gaussians.
ALPHAS = tuple(2.0**power for power in range(-3, 2))


@torch.no_grad()
def select(*, keep: int, features: Tensor, temperature: float = TEMPERATURE, channels: float = CHANNELS) -> Tensor:
    """Choose tokens of clips.

    Args:
        keep: tokens of a clip to keep, all frames together.
        features: `[B, F, N, D]` projected features; `[F, N, D]` for one clip.
        temperature: of the softmax over frames.
        channels: share of the channels that are compared.

    Returns:
        `[B, keep]` ascending token numbers, `frame * N + place`.
    """
    features = clips(features, 4)
    batch, size = len(features), features.shape[2]
    likeness, share = _likeness(features, temperature, channels)
    count = torch.arange(size, dtype=share.dtype, device=share.device)
    # The first token of each frame is due at any rate.
    due = torch.where(count == 0, -share[..., None], (count + 0.5) / (share[..., None] * size))
    counts = allot(due, keep)
    every = torch.ones_like(likeness, dtype=torch.bool).flatten(0, 1)
    kept = keep_best(-likeness.flatten(0, 1), every, counts.flatten())
    return numbers(kept.view(batch, -1), keep)


@torch.no_grad()
def released_keep(
    *, ratio: float, features: Tensor, temperature: float = TEMPERATURE, channels: float = CHANNELS
) -> Tensor:
    """Number of tokens of each clip that the released code keeps at a ratio, `[B]`; arguments as for `select`."""
    features = clips(features, 4)
    _, share = _likeness(features, temperature, channels)
    size = features.shape[2]
    return ((ratio * share).clamp_max(1) * size).round().long().clamp_min(1).sum(1)


@dataclass(frozen=True)
class VidCom2:
    """Stage 1 by `select`, with one budget per video.

    Args:
        temperature: of the softmax over frames.
        channels: share of the channels that are compared.
    """

    temperature: float = TEMPERATURE
    channels: float = CHANNELS

    needs: ClassVar[frozenset[str]] = frozenset({"projected"})
    contextual: ClassVar[bool] = False
    scope: ClassVar[str] = "medium"

    def __post_init__(self) -> None:
        if self.temperature <= 0 or not 0 < self.channels <= 1:
            raise ValueError("temperature must be above 0, channels a share above 0")

    def __call__(self, states: VisionStates, budget: Stage1) -> Edit:
        """Keep as many tokens of each video as the budget has for its frames."""
        assert states.projected is not None
        features, keep = by_frame(states.projected, states), allowance(states, budget)
        kept = select(keep=keep, features=features, temperature=self.temperature, channels=self.channels)
        return Edit.keep(kept, states.projected.shape[1])


def _likeness(features: Tensor, temperature: float, channels: float) -> tuple[Tensor, Tensor]:
    """Sum of each token's similarity to its video and its frame `[B, F, N]`, and each frame's share `[B, F]`."""
    width = features.shape[-1]
    spread = features.flatten(1, 2).var(1, correction=0)
    steady = ranked(-spread, max(1, int(width * channels))).sort(-1).values
    x = features.gather(-1, steady[:, None, None].expand(*features.shape[:3], -1))
    x = normalize(x, dim=-1)
    to_video = _gaussians(x, x.mean((1, 2), keepdim=True))
    to_frame = _gaussians(x, x.mean(2, keepdim=True))
    weight = (-to_video.mean(-1) / temperature).softmax(-1)
    return to_video + to_frame, 1 + weight - weight.mean(-1, keepdim=True)


def _gaussians(x: Tensor, centre: Tensor) -> Tensor:
    squared = (x - centre).square().sum(-1)
    return torch.stack([torch.exp(-squared / (2 * alpha)) for alpha in ALPHAS]).sum(0)
