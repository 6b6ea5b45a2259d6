"""HoliTom (Shao et al., NeurIPS 2025): merge static places over windows of frames, keep the most salient of the rest.

Code: cokeshao/HoliTom @ e9b2972, `holitom/llava_arch.py`. On the projected features of a clip:

1. A place is still between two frames if its cosine is above `tau`. Dynamic programming cuts the clip into windows to
   maximise the number of redundant tokens, (places that are still throughout) x (length - 1).
2. In a window, still places are averaged over its frames, and their means merged into density peaks: centre = beta
   centre + (1 - beta) mean of the places nearest to it; `round(rate x places)` are left.
3. Of the other places, `ceil(rate x places)` in each frame stay: those with the most attention, except for a share `d`
   (released: 0), which are density peaks of the rest, merged like the still ones.

The rate is the budget divided by the share of tokens that step 1 leaves. Differences:

* Rounding makes the released code miss the budget (306 for 300). Here the total is exact: counts are those at the rate
  that gives the total (`duet.ops.frames.allot`). At totals that the released code can reach, the choice is the same;
  `released_keep` computes them. Beyond the tokens that step 1 leaves, where the released code stops, the most attended
  still tokens of later frames are kept unchanged.
* A still token takes its place in the first frame of the window, as in the released code for LLaVA-Video; for
  LLaVA-OneVision all still tokens of a window come before the others.
* Of two equally dense tokens, the first counts as denser; `noise_seed` restores the random noise of 1e-6.
* The released code uses the attention received in SigLIP's last layer; here it is received attention of the scoring
  layer. There are no published results for this. Its option to halve again after layer 18 is a `stage2` part here.
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
from duet.ops.frames import allot, by_frame, clips, merged_edit, numbers
from duet.ops.reduce import allowance
from duet.ops.select import keep_best

if TYPE_CHECKING:
    from duet.budget import Stage1
    from duet.types import VisionStates

#: Cosine above which a place is still (the scripts: 0.65 at a tenth of the tokens), weight of a centre.
TAU, BETA = 0.8, 0.6
#: Share of a frame's kept moving tokens that are merged; number of neighbours in a density.
D, NEAREST = 0.0, 7


class Plan(NamedTuple):
    """The kept tokens and their roles; `[B, F, N]` bool unless stated.

    Attributes:
        still: still places in the window of their frame.
        centres: still tokens that are kept, in the first frame of their window.
        dominant: tokens with the most attention; still ones only beyond the tokens that the windows leave.
        contextual: moving tokens that are kept and have others merged into them.
        first: `[B, F]` long, first frame of the window of each frame.
        centre_of: `[B, F, N]` long, the token that each token is merged into; -1 for none.
    """

    still: Tensor
    centres: Tensor
    dominant: Tensor
    contextual: Tensor
    first: Tensor
    centre_of: Tensor


@torch.no_grad()
def select(
    *,
    keep: int,
    features: Tensor,
    attention: Tensor,
    tau: float = TAU,
    d: float = D,
    noise_seed: int | None = None,
) -> Tensor:
    """Choose tokens of clips.

    Args:
        keep: tokens of a clip to keep, all frames together.
        features: `[B, F, N, D]` projected features; `[F, N, D]` for one clip, likewise the other.
        attention: `[B, F, N]` saliency of each token in its frame.
        tau: cosine above which a place is still.
        d: share of a frame's kept moving tokens that are merged.
        noise_seed: see `duet.ops.density.peaks`.

    Returns:
        `[B, keep]` ascending token numbers, `frame * N + place`; a still token is numbered in its first frame.
    """
    chosen = plan(clips(features, 4), clips(attention, 3), keep, tau, d, noise_seed)
    return numbers((chosen.centres | chosen.dominant | chosen.contextual).flatten(1), keep)


@torch.no_grad()
def released_keep(*, ratio: float, features: Tensor, tau: float = TAU) -> Tensor:
    """Number of tokens of each clip that the released code keeps at a ratio, `[B]`; arguments as for `select`."""
    features = clips(features, 4)
    first, still = windows(features, tau)
    number = torch.arange(still.shape[1], device=still.device)
    opens, places = first == number, still.sum(-1)
    left = (places * opens + (~still).sum(-1)).sum(1)
    rate = (ratio * still[0].numel() / left.double()).clamp_max(1)[:, None]
    return ((places * rate).round() * opens + ((~still).sum(-1) * rate).ceil()).sum(1).long()


def windows(features: Tensor, tau: float = TAU) -> tuple[Tensor, Tensor]:
    """Cut clips into windows.

    Args:
        features: `[B, F, N, D]`.
        tau: cosine above which a place is still.

    Returns:
        first frame of the window of each frame, `[B, F]` long; still places in it, `[B, F, N]` bool.
    """
    batch, frames, size, _ = features.shape
    unit = normalize(features, dim=-1)
    alike = (unit[:, :-1] * unit[:, 1:]).sum(-1) > tau
    # runs[start, end]: places that are still from frame `start` to `end`
    runs = torch.zeros(batch, frames, frames, size, dtype=torch.bool, device=alike.device)
    for start in range(frames - 1):
        runs[:, start, start + 1 :] = alike[:, start:].cummin(1).values
    number = torch.arange(frames, device=alike.device)
    saved = runs.sum(-1) * (number - number[:, None]).clamp_min(0)
    best = torch.zeros(batch, frames + 1, dtype=torch.long, device=alike.device)
    opens = torch.zeros(batch, frames, dtype=torch.long, device=alike.device)
    for end in range(frames):
        # among equally good cuts the released code takes the shortest last window
        totals = (best[:, : end + 1] + saved[:, : end + 1, end]).flip(1)
        best[:, end + 1], length = totals.max(1).values, totals.argmax(1)
        opens[:, end] = end - length
    first = torch.zeros_like(opens)
    opening = opens[:, -1]
    for frame in range(frames - 1, -1, -1):
        # a frame before the current window is the last one of its own window
        opening = torch.where(opening > frame, opens[:, frame], opening)
        first[:, frame] = opening
    length = torch.zeros_like(first).scatter_add(1, first, torch.ones_like(first)).gather(1, first)
    last = first + length - 1
    where = (first * frames + last)[..., None].expand(-1, -1, size)
    return first, runs.flatten(1, 2).gather(1, where)


def plan(
    features: Tensor, attention: Tensor, keep: int, tau: float = TAU, d: float = D, noise_seed: int | None = None
) -> Plan:
    """Spread `keep` tokens over still and moving places and choose them; arguments as for `select`, with batch."""
    batch, frames, size, _ = features.shape
    first, still = windows(features, tau)
    number = torch.arange(frames, device=first.device)
    opens = (first == number)[..., None] & still
    centres_of, moving_of, spare_of = _counts(opens, still, keep)

    means = still_means(features, first).flatten(0, 1)
    opens_flat = opens.flatten(0, 1)
    score, distance = peaks(means, opens_flat, centres_of.flatten().clamp_max(NEAREST), noise_seed)
    centres = keep_best(score, opens_flat, centres_of.flatten())
    nearest = _nearest(distance, centres).view(batch, frames, size)
    nearest = nearest.gather(1, first[..., None].expand_as(nearest))
    centre_of = torch.where(still & (nearest >= 0), first[..., None] * size + nearest, -1)

    # as the released code rounds it: Python's round of a float
    dominant_of = torch.tensor([round(n * (1 - d)) for n in range(size + 1)], device=first.device)[moving_of]
    moving = ~still.flatten(0, 1)
    dominant = keep_best(attention.flatten(0, 1), moving, dominant_of.flatten())
    spare = (still & ~opens).flatten(0, 1)
    dominant |= keep_best(attention.flatten(0, 1), spare, spare_of.flatten())
    contextual = torch.zeros_like(dominant)
    if d > 0:
        count = (moving_of - dominant_of).flatten()
        rest = moving & ~dominant
        score, distance = peaks(features.flatten(0, 1), rest, count.clamp_max(NEAREST), noise_seed)
        contextual = keep_best(score, rest, count)
        nearest = _nearest(distance, contextual).view(batch, frames, size)
        joins = rest.view_as(still) & (nearest >= 0)
        centre_of = torch.where(joins, number[:, None] * size + nearest, centre_of)
    shape = still.shape
    return Plan(still, centres.view(shape), dominant.view(shape), contextual.view(shape), first, centre_of)


def still_means(features: Tensor, first: Tensor) -> Tensor:
    """Mean of every place over the window that starts at a frame, `[B, F, N, D]`; 0 where none starts."""
    sums = torch.zeros_like(features).index_put_(
        (torch.arange(len(first), device=first.device)[:, None], first), features, accumulate=True
    )
    length = torch.zeros_like(first).scatter_add(1, first, torch.ones_like(first))
    return sums / length.clamp_min(1)[..., None, None]


def merge(chosen: Plan, beta: float = BETA) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The merges into the centres.

    Args:
        chosen: from `plan`.
        beta: weight of a centre that others join.

    Returns:
        source, target and weight `[B, F * N]`: token `source` is added to token `target` with `weight` (both -2 at
        padding); and own `[B, F * N]`, each token's own weight. Kept tokens are not merged into others.
    """
    batch, frames, size = chosen.still.shape
    token = torch.arange(frames * size, device=chosen.first.device).expand(batch, -1)
    still = (chosen.still & ~chosen.dominant).flatten(1)
    # a still place is represented by its token in the first frame of the window
    home = torch.where(still, chosen.first.repeat_interleave(size, 1) * size + token % size, token)
    share = 1 / torch.zeros_like(token).scatter_add(1, home, torch.ones_like(token)).gather(1, home)
    target = chosen.centre_of.flatten(1).masked_fill(chosen.dominant.flatten(1), -1)
    spot = target.clamp_min(0)
    member = (target >= 0) & (home != target)
    count = torch.zeros_like(token).scatter_add(1, spot, (member & (home == token)).long())
    joined = count > 0
    kept_weight = torch.where(joined, beta, 1.0).gather(1, spot)
    member_weight = (1 - beta) / count.clamp_min(1).gather(1, spot)
    weight = torch.where(member, member_weight, kept_weight) * share
    stays = target == token
    own = torch.where(target >= 0, weight, 1.0)
    gone = (target < 0) | stays
    return token.masked_fill(gone, NONE), target.masked_fill(gone, NONE), weight.masked_fill(gone, 0), own


@dataclass(frozen=True)
class HoliTom:
    """Stage 1 by `plan` and `merge`, with one budget per video.

    Args:
        tau: cosine above which a place is still.
        d: share of a frame's kept moving tokens that are merged.
        beta: weight of a centre that others join.
        noise_seed: see `duet.ops.density.peaks`.
    """

    tau: float = TAU
    d: float = D
    beta: float = BETA
    noise_seed: int | None = None

    needs: ClassVar[frozenset[str]] = frozenset({"projected", "received_attention"})
    contextual: ClassVar[bool] = False
    scope: ClassVar[str] = "medium"

    def __post_init__(self) -> None:
        if not 0 <= self.d <= 1 or not 0 <= self.beta <= 1:
            raise ValueError("d and beta must be shares from 0 to 1")
        check_seed(self.noise_seed)

    @torch.no_grad()
    def __call__(self, states: VisionStates, budget: Stage1) -> Edit:
        """Keep as many tokens of each video as the budget has for its frames, centres included."""
        assert states.projected is not None
        features = clips(by_frame(states.projected, states), 4)
        attention = clips(by_frame(states.scores["received_attention"], states), 3)
        keep = allowance(states, budget)
        chosen = plan(features, attention, keep, self.tau, self.d, self.noise_seed)
        kept = numbers((chosen.centres | chosen.dominant | chosen.contextual).flatten(1), keep)
        return merged_edit(kept, states.projected.shape[1], *merge(chosen, self.beta))


def _counts(opens: Tensor, still: Tensor, keep: int) -> tuple[Tensor, Tensor, Tensor]:
    """For each frame, centres of the window that starts there, moving tokens and spare still tokens, `[B, F]` each."""
    frames, size = still.shape[1:]
    count = torch.arange(size, device=still.device, dtype=torch.float64)
    places, moving = opens.sum(-1)[..., None], (~still).sum(-1)[..., None]
    # round(rate places) is n + 1 from rate (n + 1/2) / places on, ceil(rate places) above rate n / places
    of_centres = torch.where(count < places, (count + 0.5) / places, torch.inf)
    of_moving = torch.where(count < moving, count / moving, torch.inf)
    # when all of these are kept
    spare = (still & ~opens).sum(-1)[..., None]
    of_spare = torch.where(count < spare, 1 + count / spare, torch.inf)
    centres_of, moving_of, spare_of = allot(torch.cat([of_centres, of_moving, of_spare], 1), keep).split(frames, 1)
    return centres_of, moving_of, spare_of


def _nearest(distance: Tensor, centres: Tensor) -> Tensor:
    """The nearest centre of each token `[R, N]`, for a centre itself; -1 if the row has none."""
    own = torch.arange(centres.shape[1], device=centres.device)
    best = distance.masked_fill(~centres[:, None], torch.inf).argmin(-1)
    return torch.where(centres, own, best).masked_fill(~centres.any(-1, keepdim=True), -1)
