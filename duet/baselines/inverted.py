"""Control: PyramidDrop's rank upside down. **Keeps what the last text token looks at least.**

A rule whose rank is worth something must be far above it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from duet.ops.scores import mean_vote

if TYPE_CHECKING:
    from torch import Tensor

    from duet.types import LayerView


@dataclass(frozen=True)
class Inverted:
    """Rank by the attention of the last prompt token, least first."""

    needs: ClassVar[frozenset[str]] = frozenset()
    layer: ClassVar[str] = "next"
    compiles: ClassVar[bool] = True

    def score(self, view: LayerView) -> tuple[Tensor, Tensor]:
        """`[B, T]`, minus the mean attention over heads and voters, and the voters."""
        rows = view.attention(view.last)
        return -mean_vote(rows.probabilities, rows.real), view.last
