"""PyramidDrop (CVPR 2025): the last text token ranks the visual tokens.

Stage 2 of the `PyramidDrop`, `DUET-VLM (vanilla)` and `DUET-VLM (C)` rows; Cooperx521/PyramidDrop `pdrop_rank_drop`.
In training, with labels, the token before each answer votes. Compare with `duet_prune.py`: only the voters differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from duet.ops.scores import mean_vote

if TYPE_CHECKING:
    from torch import Tensor

    from duet.types import LayerView


@dataclass(frozen=True)
class PyramidDrop:
    """Rank by the attention of the last prompt token."""

    needs: ClassVar[frozenset[str]] = frozenset()
    layer: ClassVar[str] = "next"
    compiles: ClassVar[bool] = True

    def score(self, view: LayerView) -> tuple[Tensor, Tensor]:
        """`[B, T]` mean attention over heads and voters, and the voters."""
        rows = view.attention(view.last)
        return mean_vote(rows.probabilities, rows.real), view.last
