"""Control: a random rank inside the language model. **Random.**

The rank of a token depends on its place among the candidates of its prompt and on the drop only, so it is the same in
every batch, and the same places survive in every picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from duet.ops.mixing import mix

if TYPE_CHECKING:
    from torch import Tensor

    from duet.types import LayerView


@dataclass(frozen=True)
class RandomRank:
    """Rank by a hash of the token's place.

    Args:
        seed: another number ranks otherwise.
    """

    seed: int = 0

    needs: ClassVar[frozenset[str]] = frozenset()
    layer: ClassVar[str] = "next"
    compiles: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 1 << 31:
            raise ValueError(f"seed is {self.seed}; it is a whole number from 0 to {(1 << 31) - 1}")

    def score(self, view: LayerView) -> tuple[Tensor, Tensor]:
        """`[B, T]` in [-1, 1), and no voters."""
        place = view.visual.long().cumsum(1) + (view.stage << 24) + (self.seed << 32)
        scores = mix(mix(place)).to(torch.float64) / 2**63
        return scores.float(), torch.zeros_like(view.visual)
