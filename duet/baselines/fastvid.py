"""FastVID (Shen et al., NeurIPS 2025): salient tokens of every frame, and anchors that merge the rest of a segment.

Code: LunarShen/FastVID @ a40a109, the block in `Qwen2Model.forward` of the LLaVA-OneVision copy (`modeling_qwen2.py`).
On the projected features of a clip:

1. DySeg: cut the clip at the `c - 1` least similar pairs of neighbouring frames, and wherever neighbours are less
   similar than `tau`.
2. STPrune: of the `r` tokens of a frame, `r - int(r d)` are those with the most attention. The others become anchors on
   every `p`-th frame of a segment, counted from its end: density peaks among the tokens that are not salient.
3. DTM: in each anchor frame, every non-salient token of the segment joins its most similar anchor, so it joins one
   anchor per anchor frame. Anchor = w anchor + (1 - w) mean of the tokens that joined, itself included, with
   w = max(1 / (1 + their number), beta).

Tokens stay in raster order and keep their position ids. Differences:

* The released code uses the same whole `r` for every frame and drops the remainder of an integer division of a
  segment's anchors, so it misses most budgets. Here `r` is the largest one that fits the total, and the remaining
  places go to the most salient of the dropped tokens. At totals that the released code can reach, the choice is the
  same; `released_keep` computes them. The copy for LLaVA-Video splits counts per segment and is a different rule.
* An anchor frame with fewer tokens than anchors, an error in the released code, keeps all of them. With fewer than
  `1 / d` tokens per frame there are only salient ones.
* Of two equally dense tokens, the first counts as denser; `noise_seed` restores the random noise of 1e-6.
* The released code uses frame vectors and attention of SigLIP's pooling head. Here LLaVA-like towers use the CLS
  feature and CLS attention, others (Qwen) the mean of the frame's tokens and received attention. There are no published
  results for these.
* The released scripts cut 32 or 64 frames into `c = 8`; the default 4 is for the 8 to 16 frames of Video-LLaVA.
* A picture is a clip of one frame, its crops included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from duet.edit import NONE, Edit
from duet.ops.density import check_seed, peaks
from duet.ops.frames import by_frame, clips, merged_edit, numbers
from duet.ops.gather import close_gaps
from duet.ops.reduce import SCORES, allowance, check_score
from duet.ops.select import keep_best, ranked

if TYPE_CHECKING:
    from duet.budget import Stage1
    from duet.types import VisionStates

#: Minimum number of segments, and the similarity of neighbours below which a clip is cut.
C, TAU = 4, 0.9
#: Share of a frame's tokens that are anchors; distance between anchor frames.
D, P = 0.4, 4
#: Minimum weight of an anchor's own feature; number of neighbours in a density.
BETA, NEAREST = 0.6, 4


class Plan(NamedTuple):
    """The kept tokens, `[B, F, N]` bool each, and first and last frame of each frame's segment, `[B, F]`."""

    salient: Tensor
    anchors: Tensor
    first: Tensor
    last: Tensor


@torch.no_grad()
def select(
    *,
    keep: int,
    features: Tensor,
    attention: Tensor,
    frame_features: Tensor,
    c: int = C,
    tau: float = TAU,
    d: float = D,
    p: int = P,
    noise_seed: int | None = None,
) -> Tensor:
    """Choose the salient tokens and the anchors of clips.

    Args:
        keep: tokens of a clip to keep, all frames together.
        features: `[B, F, N, D]` projected features; `[F, N, D]` for one clip, likewise the others.
        attention: `[B, F, N]` saliency of each token in its frame.
        frame_features: `[B, F, E]`, one vector per frame.
        c: minimum number of segments.
        tau: similarity of neighbouring frames below which a clip is cut.
        d: share of a frame's tokens that are anchors.
        p: distance between anchor frames.
        noise_seed: see `duet.ops.density.peaks`.

    Returns:
        `[B, keep]` ascending token numbers, `frame * N + place`.
    """
    chosen = plan(clips(features, 4), clips(attention, 3), clips(frame_features, 3), keep, (c, tau, d, p), noise_seed)
    return numbers((chosen.salient | chosen.anchors).flatten(1), keep)


@torch.no_grad()
def released_keep(
    *, ratio: float, frame_features: Tensor, tokens: int, c: int = C, tau: float = TAU, d: float = D, p: int = P
) -> Tensor:
    """Number of tokens of each clip that the released code keeps at a ratio, `[B]`; a frame has `tokens` tokens."""
    first, last = segments(clips(frame_features, 3), c, tau)
    salient, anchors = _counts(first, last, tokens, d, p)
    return (salient + anchors)[..., int(tokens * ratio)].sum(-1)


def segments(frame_features: Tensor, c: int = C, tau: float = TAU) -> tuple[Tensor, Tensor]:
    """First and last frame of the segment of each frame, `[B, F]` long; `frame_features [B, F, E]`."""
    unit = normalize(frame_features, dim=-1)
    alike = (unit[:, :-1] * unit[:, 1:]).sum(-1)
    frames = frame_features.shape[1]
    number = torch.arange(frames, device=alike.device).expand(frame_features.shape[:2])
    least = torch.full(alike.shape[:1], min(c - 1, frames - 1), device=alike.device)
    cut = keep_best(-alike, torch.ones_like(alike, dtype=torch.bool), least) | (alike < tau)
    edge = torch.ones_like(number[:, :1], dtype=torch.bool)
    first = number.masked_fill(~torch.cat([edge, cut], 1), 0).cummax(1).values
    last = number.masked_fill(~torch.cat([cut, edge], 1), frames - 1).flip(1).cummin(1).values.flip(1)
    return first, last


def plan(
    features: Tensor,
    attention: Tensor,
    frame_features: Tensor,
    keep: int,
    rule: tuple[int, float, float, int] = (C, TAU, D, P),
    noise_seed: int | None = None,
) -> Plan:
    """Salient tokens and anchors of clips; `rule` is `c, tau, d, p`, the rest as for `select`, with batch dimension."""
    c, tau, d, p = rule
    size = features.shape[2]
    first, last = segments(frame_features, c, tau)
    salient_of, anchors_of = _counts(first, last, size, d, p)
    totals = (salient_of + anchors_of).sum(1)
    rate = (totals <= keep).sum(-1) - 1
    at_rate = rate[:, None, None].expand(*first.shape, 1)
    salient, anchors = salient_of.gather(-1, at_rate), anchors_of.gather(-1, at_rate)
    order = ranked(attention, size)
    place = torch.arange(size, device=order.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(-1, order, place)
    spare = (rank >= salient) & (rank < size - anchors)
    more = keep_best(attention.flatten(1), spare.flatten(1), keep - totals.gather(1, rate[:, None])[:, 0])
    most = (rank < salient) | more.view_as(spare)
    pool = ~most.flatten(0, 1)
    nearest = torch.full(pool.shape[:1], NEAREST, device=pool.device)
    score, _ = peaks(features.flatten(0, 1), pool, nearest, noise_seed)
    dense = keep_best(score, pool, anchors.flatten())
    return Plan(most, dense.view_as(most), first, last)


def merge(features: Tensor, chosen: Plan, beta: float = BETA, p: int = P) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The merges into the anchors.

    Args:
        features: `[B, F, N, D]`.
        chosen: from `plan`.
        beta: minimum weight of an anchor's own feature.
        p: distance between anchor frames.

    Returns:
        source, target and weight `[B, M]`: token `source` is added to token `target` with `weight` (both -2 at
        padding); and own `[B, F * N]`, each token's own weight.
    """
    batch, frames, size, _ = features.shape
    unit = normalize(features, dim=-1)
    token = torch.arange(frames * size, device=features.device).expand(batch, -1)
    targets = []
    # as many as the longest segment has anchor frames
    for steps in range(int((chosen.last - chosen.first).max()) // p + 1):
        there = chosen.last - steps * p
        inside = there >= chosen.first
        there = there.clamp_min(0)[..., None]
        anchors = chosen.anchors.gather(1, there.expand_as(chosen.anchors))
        alike = unit @ unit.gather(1, there[..., None].expand_as(unit)).transpose(2, 3)
        best = alike.masked_fill(~anchors[:, :, None], -torch.inf).argmax(-1)
        joins = inside[..., None] & anchors.any(-1, keepdim=True) & ~chosen.salient
        targets.append(torch.where(joins, there * size + best, NONE).flatten(1))
    target, source = torch.cat(targets, 1), token.repeat(1, len(targets))
    used = target >= 0
    index, joined = close_gaps(used, int(used.sum(1).max()), left=False)
    target, source = target.gather(1, index).masked_fill(~joined, NONE), source.gather(1, index)
    spot = target.clamp_min(0)
    count = torch.zeros_like(token).scatter_add(1, spot, joined.long()).to(features.dtype)
    own = (1 / (count + 1)).clamp_min(beta)
    weight = ((1 - own) / count.clamp_min(1)).gather(1, spot)
    return source.masked_fill(~joined, NONE), target, weight.masked_fill(~joined, 0), own


@dataclass(frozen=True)
class FastVID:
    """Stage 1 by `plan` and `merge`, with one budget per video.

    Args:
        score: `cls_row`, or `column_mean` on towers without CLS.
        c: minimum number of segments.
        tau: similarity of neighbouring frames below which a clip is cut.
        d: share of a frame's tokens that are anchors.
        p: distance between anchor frames.
        beta: minimum weight of an anchor's own feature.
        noise_seed: see `duet.ops.density.peaks`.
    """

    score: str = "cls_row"
    c: int = C
    tau: float = TAU
    d: float = D
    p: int = P
    beta: float = BETA
    noise_seed: int | None = None

    contextual: ClassVar[bool] = False
    scope: ClassVar[str] = "medium"

    def __post_init__(self) -> None:
        check_score(self.score)
        if self.c < 1 or self.p < 1 or not 0 <= self.d <= 1 or not 0 <= self.beta <= 1:
            raise ValueError("c and p must be at least 1, d and beta shares from 0 to 1")
        check_seed(self.noise_seed)

    @property
    def needs(self) -> frozenset[str]:
        """The score row, and projected features."""
        return frozenset({SCORES[self.score], "projected"})

    @torch.no_grad()
    def __call__(self, states: VisionStates, budget: Stage1) -> Edit:
        """Keep as many tokens of each video as the budget has for its frames, anchors included."""
        assert states.projected is not None
        keep, tokens = allowance(states, budget), states.projected.shape[1]
        features = clips(by_frame(states.projected, states), 4)
        if keep == tokens:
            return Edit.keep(torch.arange(tokens, device=features.device).expand(len(features), -1), tokens)
        attention = clips(by_frame(states.scores[SCORES[self.score]], states), 3)
        # a picture with its crops is one frame: the whole picture comes first
        vectors = features.mean(2) if states.cls is None else clips(states.cls, 3)[:, : features.shape[1]]
        chosen = plan(features, attention, vectors, keep, (self.c, self.tau, self.d, self.p), self.noise_seed)
        kept = numbers((chosen.salient | chosen.anchors).flatten(1), keep)
        source, target, weight, own = merge(features, chosen, self.beta, self.p)
        return merged_edit(kept, tokens, source, target, weight, own)


def _counts(first: Tensor, last: Tensor, size: int, d: float, p: int) -> tuple[Tensor, Tensor]:
    """Salient tokens and anchors of each frame for r = 0 to `size` tokens per frame, `[B, F, size + 1]` each."""
    number = torch.arange(first.shape[1], device=first.device)
    length = (last - first + 1)[..., None]
    bearers = (length + p - 1) // p
    context = torch.tensor([int(r * d) for r in range(size + 1)], device=first.device)
    salient = torch.arange(size + 1, device=first.device) - context
    is_bearer = ((last - number) % p == 0)[..., None]
    anchors = torch.where(is_bearer, context * length // bearers, 0)
    return salient.expand_as(anchors), torch.minimum(anchors, size - salient)
