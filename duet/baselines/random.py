"""Control: patches at random, the same ones for the same picture. **Random.**

The seed of a picture is computed from its own features, so it does not depend on the batch, the order of pictures or
any generator: 16 signs of coarse contrasts (bands of the picture against each other, along pseudo-random directions of
the feature space). Averages over hundreds of patches hardly change with the rounding of another batch size, so a
picture keeps its patches unless a contrast is within rounding of 0. Pictures with the same features get the same
patches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from duet.edit import Edit
from duet.ops.mixing import mix
from duet.ops.reduce import allowance
from duet.ops.select import ranked
from duet.ops.similarity import exact

if TYPE_CHECKING:
    from torch import Tensor

    from duet.budget import Stage1
    from duet.types import VisionStates

#: Contrasts are this many patterns of bands times this many directions.
BANDS, DIRECTIONS = 4, 4
#: A contrast counts as positive above this share of the features' size; a flat picture has none.
FLAT = 1e-3


@torch.no_grad()
def select(*, keep: int, features: Tensor, seed: int = 0) -> Tensor:
    """Any K patches, all sets equally likely.

    Args:
        keep: K.
        features: `[B, N, D]`, read for the pictures' seeds.
        seed: another number draws other patches for every picture.

    Returns:
        `[B, K]` long, ascending.
    """
    number = torch.arange(features.shape[1], device=features.device)
    drawn = mix(mix(picture_seeds(features) + (seed << 16))[:, None] + number)
    return ranked(drawn, keep).sort(-1).values


def picture_seeds(features: Tensor) -> Tensor:
    """A number below 65536 for each picture, from its features `[B, N, D]` alone: `[B]` long."""
    tokens, width = features.shape[1:]
    x = exact(features)
    number = torch.arange(tokens, device=x.device)
    bands = torch.stack([(number << power) // tokens & 1 for power in range(1, BANDS + 1)])
    ways = mix(torch.arange(DIRECTIONS * width, device=x.device)).view(DIRECTIONS, width) & 1
    signs, directions = (2 * bands - 1).to(x.dtype), (2 * ways - 1).to(x.dtype)
    contrasts = (signs @ x @ directions.T).flatten(1)
    size = x.square().mean((1, 2)).sqrt()[:, None] * tokens * width**0.5
    powers = torch.arange(BANDS * DIRECTIONS, device=x.device)
    return ((contrasts > FLAT * size).long() << powers).sum(-1)


@dataclass(frozen=True)
class Random:
    """Stage 1 by `select`.

    Args:
        seed: another number draws other patches.
    """

    seed: int = 0

    needs: ClassVar[frozenset[str]] = frozenset()
    contextual: ClassVar[bool] = False
    scope: ClassVar[str] = "unit"

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 1 << 32:
            raise ValueError(f"seed is {self.seed}; it is a whole number from 0 to {(1 << 32) - 1}")

    def __call__(self, states: VisionStates, budget: Stage1) -> Edit:
        """Keep as many patches as the budget has tokens."""
        kept = select(keep=allowance(states, budget), features=states.features, seed=self.seed)
        return Edit.keep(kept, states.features.shape[1])
