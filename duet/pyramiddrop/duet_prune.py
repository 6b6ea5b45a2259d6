"""DUET's text guidance (paper Sec. 3.2, Tables 8 and 11): several text tokens rank the visual tokens.

Stage 2 of the `(C+all)` and `(C+S)` rows and of `PDrop (all)`, `PDrop (S)`; `modeling_llama_pdrop.py::pdrop_rank_drop`.
Voters always come after the last picture of a row, so each of them sees all visual tokens of the row:

* `all`: every text token; in training, those of all turns except the answers. The released scripts use this.
* `salient`: content words of the question (`duet/text/salient.py`) and the last prompt token.
* `attention`: text tokens whose attention to the visual tokens is above the mean over text tokens, and the last one.
  The appendix calls salient tokens "those with the highest attention weights"; the released code uses parts of speech.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from duet.ops.scores import mean_vote

if TYPE_CHECKING:
    from torch import Tensor

    from duet.types import LayerView

GUIDANCES = ("all", "salient", "attention")


@dataclass(frozen=True)
class DuetPrune:
    """Rank by the mean attention of several text tokens.

    Args:
        text_guidance: `all`, `salient` or `attention`, see the module docstring.
    """

    text_guidance: str = "all"

    layer: ClassVar[str] = "next"
    compiles: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.text_guidance not in GUIDANCES:
            raise ValueError(f"text_guidance is {self.text_guidance!r}; choose {', '.join(GUIDANCES)}")

    @property
    def needs(self) -> frozenset[str]:
        """Content words, for `salient`."""
        return frozenset({"salient"} if self.text_guidance == "salient" else ())

    def score(self, view: LayerView) -> tuple[Tensor, Tensor]:
        """`[B, T]` mean attention over heads and voters, and the voters."""
        if self.text_guidance == "attention":
            return self._by_attention(view)
        voters = view.text if self.text_guidance == "all" else view.salient
        assert voters is not None
        rows = view.attention(voters)
        return mean_vote(rows.probabilities, rows.real), voters

    def _by_attention(self, view: LayerView) -> tuple[Tensor, Tensor]:
        asked = view.text | view.last
        rows = view.attention(asked)
        to_visual = (rows.probabilities * view.visual[:, None]).sum(-1)
        mean = (to_visual * rows.real).sum(1, keepdim=True) / rows.real.sum(1, keepdim=True).clamp_min(1)
        chosen = rows.real & ((to_visual >= mean) | view.last.gather(1, rows.index))
        voters = torch.zeros_like(asked).scatter(1, rows.index, chosen) & asked
        return mean_vote(rows.probabilities, chosen), voters
