"""MMTok (ICLR 2026): patches that cover both the words of the question and the other patches.

Code: Ironieser/MMTok @ d1522cd, `mmtok/core/semantic_selector.py::mm_coverage_selection`. Released: greedy maximum
coverage of two kinds of rows. A word's row is the softmax over patches of its cosine with the projected features, a
patch's row that of its cosines with tower features; all words together weigh 1, all patches 0.5. Words are embeddings
of the user's turn from the language model's table (`duet.text.keywords`). Picks are sorted, and renumbered on LLaVA.

Differences: all families use LLaVA's temperature and rule for words; the released code for Qwen has 0.01 instead of
0.02 (`text_temperature`) and keeps stop words. Its option to leave out the padding of a picture is not included. For a
question without words, only patches are covered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from duet.edit import Edit
from duet.ops.coverage import patches_covered, words_covered
from duet.ops.greedy import Coverage, everyone, greedy
from duet.ops.reduce import allowance

if TYPE_CHECKING:
    from torch import Tensor

    from duet.budget import Stage1
    from duet.types import VisionStates

#: Temperature over words: LLaVA's and Qwen's in the released code.
LLAVA_TEMPERATURE, QWEN_TEMPERATURE = 0.02, 0.01


@torch.no_grad()
def select(
    *,
    keep: int,
    features: Tensor,
    projected: Tensor,
    text_tokens: Tensor,
    text_valid: Tensor | None = None,
    text_temperature: float = LLAVA_TEMPERATURE,
    vision_temperature: float = 0.2,
    vision_weight: float = 0.5,
) -> Tensor:
    """The patches that cover words and picture best.

    Args:
        keep: K.
        features: `[B, N, D]` of the tower.
        projected: `[B, N, P]`.
        text_tokens: `[B, M, P]` embeddings of the question's words; M may be 0.
        text_valid: `[B, M]` bool, False at padding; None for all.
        text_temperature, vision_temperature: temperatures of the two softmaxes.
        vision_weight: weight of all patches to cover; words have 1.

    Returns:
        `[B, K]` long, ascending.
    """
    patches = patches_covered(features, vision_temperature) * (vision_weight / features.shape[1])
    words = words_covered(projected, text_tokens, text_valid, text_temperature)
    return greedy(Coverage(torch.cat([words, patches], 2)), keep, everyone(features)).sort(-1).values


@dataclass(frozen=True)
class MMTok:
    """Stage 1 by `select`.

    Args:
        text_temperature: 0.02 as released for LLaVA; the released code has 0.01 for Qwen.
        vision_temperature, vision_weight: see `select`.
    """

    text_temperature: float = LLAVA_TEMPERATURE
    vision_temperature: float = 0.2
    vision_weight: float = 0.5

    needs: ClassVar[frozenset[str]] = frozenset({"projected", "text_tokens"})
    contextual: ClassVar[bool] = False
    scope: ClassVar[str] = "unit"

    def __post_init__(self) -> None:
        if self.text_temperature <= 0 or self.vision_temperature <= 0 or self.vision_weight < 0:
            raise ValueError("temperatures must be above 0, vision_weight at least 0")

    def __call__(self, states: VisionStates, budget: Stage1) -> Edit:
        """Keep as many patches as the budget has tokens."""
        assert states.projected is not None and states.text_tokens is not None
        kept = select(
            keep=allowance(states, budget),
            features=states.features,
            projected=states.projected,
            text_tokens=states.text_tokens,
            text_valid=states.text_valid,
            text_temperature=self.text_temperature,
            vision_temperature=self.vision_temperature,
            vision_weight=self.vision_weight,
        )
        return Edit.keep(kept, states.features.shape[1])
