"""SparseVLM (ICML 2025): some text tokens rate the visual tokens, and part of the dropped tokens is recycled.

Gumpest/SparseVLMs @ 26a5f48, `score.py`, `utils.py`, `modelling_sparse_llama.py`. Raters are the text tokens after the
picture that get more than average attention from the visual embeddings (`duet.ops.raters`); they are chosen once, from
the input embeddings. After layers 3, 7 and 16 the visual tokens with the most attention from the raters stay, measured
in the previous layer.

* Version 1.5, the default: the best-rated 30 % of the dropped tokens are merged into a tenth as many tokens by density
  peaks (`recycle`), placed after the kept ones. Positions are renumbered. Budgets include merged tokens; the released
  lists (300, 200, 110 for "192") do not, and they count a layer after its drop instead of before it.
* Version 2 (SparseVLM+): attention is divided by the part due to the rotary embedding alone (`gravity`), only the 14
  heads with the most attention to the picture vote, nothing is recycled, and position ids are kept.

Differences: the released clustering adds random noise of 1e-6 to break ties between densities; here the better-rated
token counts as denser. If a budget is so small that more tokens would be merged than kept, equally many are kept and
merged. Version 1.0 is not included: it sets its counts by the rank of a matrix, so a budget cannot choose them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch.nn.functional import one_hot

from duet.edit import NONE, Edit
from duet.ops.density import peaks
from duet.ops.gather import close_gaps, take
from duet.ops.raters import raters as raters
from duet.ops.raters import remembered_raters
from duet.ops.rope import rotate
from duet.ops.scores import mean_vote
from duet.ops.select import keep_best, ranked, top_and_rest
from duet.ops.similarity import exact

if TYPE_CHECKING:
    from torch import Tensor

    from duet.types import LayerView

#: Heads that vote in version 2; the released number, for a model with 28 heads.
PRIORITY_HEADS = 14
VERSIONS = ("1.5", "2")


def select(
    *,
    keep: int,
    attention: Tensor,
    real: Tensor | None = None,
    gravity: Tensor | None = None,
    heads: int | None = None,
) -> Tensor:
    """The visual tokens that the raters attend to most.

    Args:
        keep: number of tokens to keep.
        attention: `[B, H, R, N]` probabilities of the raters over the visual tokens, in the previous layer.
        real: `[B, R]` bool, False at padding; None for all.
        gravity: `[B, R, N]`, and heads: `PRIORITY_HEADS`, for version 2; see `rate`.

    Returns:
        `[B, keep]` ascending.
    """
    return top_and_rest(rate(attention, real, gravity, heads), keep)[0]


def rate(
    attention: Tensor, real: Tensor | None = None, gravity: Tensor | None = None, heads: int | None = None
) -> Tensor:
    """Mean attention over raters and heads, `[B, H, R, N]` -> `[B, N]`.

    Args:
        attention, real: see `select`.
        gravity: `[B, R, N]` from `gravity`, the divisor of attention; it may be negative.
        heads: number of heads per row that vote, those with the largest sum over raters and visual tokens.
    """
    votes = exact(attention)
    if gravity is not None:
        votes = votes / gravity[:, None]
    if real is not None:
        votes = votes.masked_fill(~real[:, None, :, None], 0)
    raters = votes.shape[2] if real is None else real.sum(-1, keepdim=True).clamp_min(1)
    votes = votes.sum(2)
    if heads is not None and heads < votes.shape[1]:
        best = top_and_rest(votes.sum(-1), heads)[0]
        votes = take(votes, best)
    return votes.mean(1) / raters


def gravity(query_rope: tuple[Tensor, Tensor], key_rope: tuple[Tensor, Tensor]) -> Tensor:
    """Product of a query and a key of ones after the rotary embedding: the part of a logit due to position alone.

    Args:
        query_rope: cos and sin `[B, R, d]` of the raters.
        key_rope: cos and sin `[B, N, d]` of the visual tokens.

    Returns:
        `[B, R, N]`.
    """
    query, key = (rotate(torch.ones_like(cos)[:, None], cos, sin)[:, 0] for cos, sin in (query_rope, key_rope))
    return query @ key.transpose(1, 2) / query.shape[-1] ** 0.5


def recycle(*, hidden: Tensor, scores: Tensor, keep: int) -> Tensor:
    """The tokens that version 1.5 makes from dropped ones, in prompts of one shape.

    Args:
        hidden: `[B, N, D]` hidden states of the visual tokens.
        scores: `[B, N]`, their ratings.
        keep: number of tokens to keep, less than N.

    Returns:
        `[B, C, D]` in hidden's dtype, the best centre first; C is `merged_count(N - keep)`.
    """
    dropped = hidden.shape[1] - keep
    kept = torch.full_like(scores[:, 0], keep, dtype=torch.long)
    merged = clusters(
        hidden=hidden,
        scores=scores,
        real=torch.ones_like(scores, dtype=torch.bool),
        kept=kept,
        made=torch.full_like(kept, merged_count(dropped)),
        most=(pool_size(dropped), merged_count(dropped)),
    )
    spread = one_hot(merged.target, merged_count(dropped)).to(merged.weight) * merged.weight[..., None]
    return (spread.transpose(1, 2) @ exact(take(hidden, merged.pool))).to(hidden.dtype)


def pool_size(dropped: Any) -> Any:
    """Number of dropped tokens that are merged; the others are lost."""
    return dropped * 3 // 10 + 1


def merged_count(dropped: Any) -> Any:
    """Number of tokens made from `dropped` ones (int or a tensor of counts)."""
    return pool_size(dropped) // 10 + 1


def split_counts(counts: Tensor, tokens: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Split a total into tokens that stay unchanged and tokens that are made from others.

    Of the splits that the released rule allows, this is the one with the most unchanged tokens; they are at least as
    many as the made ones.

    Args:
        counts: `[B]` long, the total, at most `tokens`.
        tokens: `[B]` long, number of tokens before.
        most: the largest entry of `tokens`, or more.

    Returns:
        Both `[B]` long; their sum is `counts`.
    """
    stay = torch.arange(most + 1, device=counts.device).expand(len(counts), -1)
    dropped = (tokens[:, None] - stay).clamp_min(0)
    total = stay + torch.where(dropped > 0, merged_count(dropped), 0)
    # the total grows with the unchanged tokens, never by more than one
    stays = ((total <= counts[:, None]) & (stay <= tokens[:, None])).sum(-1) - 1
    stays = torch.maximum(stays, counts - counts // 2)
    return stays, counts - stays


@dataclass(frozen=True)
class Clusters:
    """Clusters of dropped tokens. `pool`, `target`, `weight`, `real` are `[B, P]`, `centres`, `made` `[B, C]`.

    Attributes:
        pool: the tokens that are merged, best rating first; real: False at padding.
        target: the cluster that each goes to; weight: 1 / size of that cluster.
        centres: the central token of each cluster, best first; made: False at padding.
    """

    pool: Tensor
    real: Tensor
    target: Tensor
    weight: Tensor
    centres: Tensor
    made: Tensor


def clusters(
    *, hidden: Tensor, scores: Tensor, real: Tensor, kept: Tensor, made: Tensor, most: tuple[int, int]
) -> Clusters:
    """Density peaks among the best of the dropped tokens.

    Args:
        hidden: `[B, V, D]`; scores: `[B, V]`; real: `[B, V]` bool, False at padding.
        kept: `[B]` long, how many stay; made: `[B]`, number of clusters, 0 for none.
        most: columns P and C of the result: the largest pool and the largest `made`, or more.
    """
    size, count = most
    order = ranked(exact(scores).masked_fill(~real, -torch.inf), scores.shape[1])
    places = torch.arange(size, device=scores.device)
    pooled = torch.where(made > 0, pool_size(real.sum(-1) - kept), 0)
    inside = places < pooled[:, None]
    pool = order.gather(1, (kept[:, None] + places).clamp_max(scores.shape[1] - 1))
    centres, target, weight = merge_at_peaks(exact(take(hidden, pool)), inside, made, count)
    return Clusters(
        pool, inside, target, weight, pool.gather(1, centres), torch.arange(count, device=made.device) < made[:, None]
    )


def merge_at_peaks(x: Tensor, inside: Tensor, made: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Density peaks, and the nearest peak of each token; `cluster_and_merge` of the released code.

    Args:
        x: `[B, P, D]`; inside: `[B, P]` bool, False at padding.
        made: `[B]` long, number of clusters, also the number of neighbours in a density; count: C, their maximum.

    Returns:
        centres `[B, C]` in x, best first; target `[B, P]`, the index of each token's centre among them; weight
        `[B, P]`, 1 / size of its cluster.
    """
    value, distances = peaks(x, inside, made)
    centres = ranked(value, count)
    numbers = torch.arange(count, device=x.device).expand_as(centres)
    is_made = numbers < made[:, None]
    target = take(distances, centres).masked_fill(~is_made[..., None], torch.inf).argmin(1)
    # a centre goes to itself, even if another one is at distance 0
    padded = torch.cat([target, target[:, :1]], 1).scatter(1, centres.masked_fill(~is_made, x.shape[1]), numbers)
    target = padded[:, : x.shape[1]]
    sizes = torch.zeros_like(value[:, :count]).scatter_add(1, target, inside.to(value))
    return centres, target, 1 / sizes.gather(1, target).clamp_min(1)


@dataclass(frozen=True)
class SparseVLM:
    """Rank by the attention of the raters, and recycle.

    Args:
        version: `1.5` or `2`, see the module docstring.
    """

    version: str = VERSIONS[0]

    needs: ClassVar[frozenset[str]] = frozenset({"embeddings"})
    layer: ClassVar[str] = "previous"

    def __post_init__(self) -> None:
        if self.version not in VERSIONS:
            raise ValueError(f"version is {self.version!r}; choose {' or '.join(VERSIONS)}")

    def score(self, view: LayerView) -> tuple[Tensor, Tensor]:
        """`[B, T]` the raters' attention, and the raters."""
        voters = remembered_raters(view)
        if self.version == "1.5":
            rows = view.attention(voters)
            return mean_vote(rows.probabilities, rows.real), voters
        rows = view.attention(voters, heads="all")
        assert view.rope is not None
        cos, sin = view.rope
        weight = gravity((take(cos, rows.index), take(sin, rows.index)), view.rope)
        seen = rows.probabilities.masked_fill(~view.visual[:, None, None], 0)
        return rate(seen, rows.real, weight, PRIORITY_HEADS), voters

    def edit(self, view: LayerView, scores: Tensor, counts: Tensor) -> Edit:
        """Keep the best; in version 1.5 some of the `counts [B]` tokens are merged ones."""
        if self.version == "1.5":
            return _recycling(view, scores, counts)
        return Edit.keep(_places(keep_best(scores, view.visual, counts)), scores.shape[1])


def _compact(mask: Tensor) -> tuple[Tensor, Tensor]:
    return close_gaps(mask, int(mask.sum(1).max()), left=False)


def _places(mask: Tensor) -> Tensor:
    """The marked columns of each row, ascending, `NONE` at padding."""
    index, real = _compact(mask)
    return torch.where(real, index, NONE)


def _recycling(view: LayerView, scores: Tensor, counts: Tensor) -> Edit:
    index, real = _compact(view.visual)
    tokens, width = real.sum(1), index.shape[1]
    stays, made = split_counts(torch.minimum(counts, tokens), tokens, most=width)
    kept = _places(keep_best(scores, view.visual, stays))
    if not width:
        return Edit.keep(kept, scores.shape[1])
    merged = clusters(
        hidden=take(view.hidden, index),
        scores=scores.gather(1, index),
        real=real,
        kept=stays,
        made=made,
        most=(pool_size(width), merged_count(width)),
    )
    first = kept.shape[1]
    centres = torch.where(merged.made, index.gather(1, merged.centres), NONE)
    share = torch.ones_like(kept, dtype=merged.weight.dtype)
    return Edit(
        kept=torch.cat([kept, centres], 1),
        tokens=scores.shape[1],
        source=torch.where(merged.real, index.gather(1, merged.pool), NONE),
        target=merged.target + first,
        weight=merged.weight,
        share=torch.cat([share, torch.zeros_like(centres, dtype=share.dtype)], 1),
        contextual=centres.shape[1],
    )
