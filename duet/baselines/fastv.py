"""FastV (ECCV 2024): after a few layers, keep the visual tokens that the last prompt token attends to.

pkunlp-icler/FastV @ d165972. One drop, after layer K (2 in the README's latency runs, 3 in the published LLaVA-1.5
row). The score is the attention of the last prompt token in layer K - 1, mean over heads; the paper's text says the
mean over all tokens, the code uses one row. Survivors keep their order and their position ids.

The released code has three versions: one masks the dropped columns and ranks again for every new token, one removes
them without a cache, and the Hugging Face fork drops once, in the prefill. This is the last one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from duet.ops.scores import mean_vote
from duet.ops.select import top_and_rest
from duet.ops.similarity import exact

if TYPE_CHECKING:
    from torch import Tensor

    from duet.types import LayerView


def select(*, keep: int, attention: Tensor) -> Tensor:
    """The visual tokens that the last prompt token attends to most.

    Args:
        keep: number of tokens to keep.
        attention: `[B, H, N]` probabilities of the last prompt token over the visual tokens, in the layer before the
            drop.

    Returns:
        `[B, keep]` ascending.
    """
    return top_and_rest(exact(attention).mean(1), keep)[0]


@dataclass(frozen=True)
class FastV:
    """Rank by the attention of the last prompt token in the previous layer; K is the layer of the budget."""

    needs: ClassVar[frozenset[str]] = frozenset()
    layer: ClassVar[str] = "previous"
    compiles: ClassVar[bool] = True

    def score(self, view: LayerView) -> tuple[Tensor, Tensor]:
        """`[B, T]` mean attention over heads, and the last token; in training, the tokens before each answer."""
        rows = view.attention(view.last)
        return mean_vote(rows.probabilities, rows.real), view.last
