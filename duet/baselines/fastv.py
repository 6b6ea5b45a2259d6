"""FastV (ECCV 2024): after a few layers, keep the visual tokens that the last prompt token attends to.

pkunlp-icler/FastV @ d165972. One drop, after layer K (2 in the README's latency runs, 3 in the published LLaVA-1.5
row). The score is the attention of layer K - 1, mean over heads, of the last prompt token only; the paper's text says
the mean over all tokens, the code takes one row. Survivors keep their order and their position ids.

The released code exists in three forms: one masks the dropped columns and ranks again for every new token, one removes
them without a cache, and the Hugging Face fork drops once, while the prompt runs. This is the last of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from duet.ops.select import top_and_rest
from duet.ops.similarity import exact

if TYPE_CHECKING:
    from torch import Tensor


def select(*, keep: int, attention: Tensor) -> Tensor:
    """The visual tokens that the last prompt token attends to most.

    Args:
        keep: how many stay.
        attention: `[B, H, N]` probabilities of the last prompt token over the visual tokens, of the layer before the
            drop.

    Returns:
        `[B, keep]` ascending.
    """
    return top_and_rest(exact(attention).mean(1), keep)[0]
