"""DART (EMNLP 2025): keep a few pivots, and the visual tokens that are least similar to them.

Code: the original repository was not available; this follows the port ModelTC/LightCompress @ 9701d03,
`token_reduction/dart.py`. After layer 2: the pivots are the 4 visual tokens and the 4 tokens after the picture whose
keys in the previous layer have the largest L1 norm, over all heads. Each pivot in turn adds the remaining visual tokens
that are least similar to it (cosine of the hidden states after the model's final norm). The visual pivots stay, too.
Survivors keep their position ids.

Differences:

* The port adds `int(N * share / 8)` tokens per pivot, so 192, 128 and 64 become 188, 132 and 68. Here the count is
  exact: the places that the visual pivots leave are spread evenly over all pivots, with one more for those visited
  first.
* The port visits the pivots in the order in which CPython iterates over a set of their columns; `set_order` computes
  it in any Python. Columns are counted without padding, so a row gives the same result alone and in a batch.
* With fewer than 4 tokens after the picture there are fewer pivots.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch.nn.functional import normalize

from duet.edit import NONE, Edit
from duet.ops.gather import close_gaps, take
from duet.ops.hashing import set_order
from duet.ops.rope import rotate
from duet.ops.select import keep_best, ranked, top_and_rest
from duet.ops.similarity import exact

if TYPE_CHECKING:
    from torch import Tensor

    from duet.types import LayerView

#: The port's `pivot_image_token` and `pivot_text_token`.
PIVOTS = 4


def select(*, keep: int, keys: Tensor, hidden: Tensor, image_start: int, image_tokens: int) -> Tensor:
    """Visual pivots and the tokens least similar to the pivots, in prompts of one shape.

    Args:
        keep: number of visual tokens to keep.
        keys: `[B, H, L, d]` keys of the previous layer, after the rotary embedding.
        hidden: `[B, L, D]` hidden states at the drop, after the model's final norm.
        image_start: column of the first visual token.
        image_tokens: number of visual tokens, all adjacent; text follows them.

    Returns:
        `[B, keep]` numbers of visual tokens, ascending.
    """
    columns = torch.arange(hidden.shape[1], device=hidden.device).expand(hidden.shape[:2])
    visual = (columns >= image_start) & (columns < image_start + image_tokens)
    text = columns >= image_start + image_tokens
    kept = choose(
        norms=key_norms(keys),
        hidden=hidden,
        columns=columns,
        visual=visual,
        text=text,
        counts=torch.full_like(columns[:, 0], keep),
    )
    return top_and_rest(kept[:, image_start : image_start + image_tokens].byte(), keep)[0]


def key_norms(keys: Tensor) -> Tensor:
    """L1 norm over all heads: `[B, H, T, d]` -> `[B, T]`."""
    return exact(keys).abs().sum((1, 3))


def choose(*, norms: Tensor, hidden: Tensor, columns: Tensor, visual: Tensor, text: Tensor, counts: Tensor) -> Tensor:
    """The visual tokens to keep, in rows of any shape.

    Args:
        norms: `[B, T]`, norms of the keys.
        hidden: `[B, T, D]` after the model's final norm.
        columns: `[B, T]` long, column of each token in its unpadded prompt.
        visual: `[B, T]` bool, candidates; text: `[B, T]` bool, candidates for the other pivots.
        counts: `[B]` long, how many to keep.

    Returns:
        `[B, T]` bool, a subset of `visual`.
    """
    pivots, real, chosen = _pivots(norms, visual, text, counts)
    order = set_order(columns.gather(1, pivots).masked_fill(~real, 0), real)
    pivots, real = pivots.gather(1, order), real.gather(1, order)
    share, spare = _spread(counts - chosen.sum(-1), real.sum(-1))
    unit = normalize(exact(hidden), dim=-1)
    similarity = take(unit, pivots) @ unit.transpose(1, 2)
    for visit in range(pivots.shape[1]):
        quota = (share + (visit < spare)) * real[:, visit]
        chosen = chosen | keep_best(-similarity[:, visit], visual & ~chosen, quota)
    return chosen


def _pivots(norms: Tensor, visual: Tensor, text: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens `[B, P]` in the port's order of insertion into its set, a mask of the real ones, and the visual ones.

    `set_order` needs padding last, so the real ones are moved to the front.
    """
    places = torch.arange(min(PIVOTS, norms.shape[1]), device=norms.device)
    parts, reals = [], []
    for candidates, most in ((visual, torch.minimum(visual.sum(-1), counts)), (text, text.sum(-1))):
        parts.append(ranked(norms.masked_fill(~candidates, -torch.inf), PIVOTS))
        reals.append(places < most[:, None])
    pivots, real = torch.cat(parts, 1), torch.cat(reals, 1)
    chosen = torch.zeros_like(visual).scatter(1, parts[0], reals[0])
    front = (~real).byte().sort(dim=-1, stable=True).indices
    return pivots.gather(1, front), real.gather(1, front), chosen


def _spread(amount: Tensor, pivots: Tensor) -> tuple[Tensor, Tensor]:
    """Number of tokens that each pivot adds `[B]`, and number of pivots that add one more `[B]`."""
    pivots = pivots.clamp_min(1)
    return amount // pivots, amount % pivots


@dataclass(frozen=True)
class Dart:
    """Keep pivots and the tokens least similar to them, at every drop of the budget."""

    needs: ClassVar[frozenset[str]] = frozenset()
    layer: ClassVar[str] = "previous"

    def score(self, view: LayerView) -> tuple[Tensor, Tensor]:
        """`[B, T]` L1 norms of the keys, and the text tokens that are pivots."""
        norms = key_norms(_from_first(view))
        return norms, keep_best(norms, view.text, torch.full_like(view.columns[:, 0], PIVOTS))

    def edit(self, view: LayerView, scores: Tensor, counts: Tensor) -> Edit:
        """Keep `counts [B]` of the candidates."""
        start = view.columns.gather(1, _first(view))
        chosen = choose(
            norms=scores,
            hidden=view.normed(),
            columns=(view.columns - start).clamp_min(0),
            visual=view.visual,
            text=view.text,
            counts=counts,
        )
        index, real = close_gaps(chosen, int(chosen.sum(1).max()), left=False)
        return Edit.keep(torch.where(real, index, NONE), chosen.shape[1])


def _first(view: LayerView) -> Tensor:
    """`[B, 1]`, the first token of each row."""
    return view.valid.byte().argmax(1, keepdim=True)


def _from_first(view: LayerView) -> Tensor:
    """Keys `[B, Hkv, T, d]` as if the first token of each row were at position 0.

    The L1 norm depends on the position, and a padded row need not start at 0.
    """
    assert view.rope is not None
    cos, sin = (take(table, _first(view)) for table in view.rope)
    return rotate(view.keys(), cos, -sin)
