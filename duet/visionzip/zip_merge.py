"""VisionZip (CVPR 2025): keep the dominant patches, merge all others into evenly spaced contextual tokens.

Stage 1 of the paper's `VisionZip` and `DUET-VLM (vanilla)` rows; the rule of dvlab-research/VisionZip
`clip_encoder.py`. `[B, N, D]` patches and CLS -> `[CLS, dominant ascending, contextual]`,
`[B, dominant + contextual, D]`. `duet_merge.py` differs only in which patches may be merged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from duet.ops.merge import nearest_anchor, spaced
from duet.ops.reduce import SCORES, assemble, check_score, split_dominant

if TYPE_CHECKING:
    from duet.budget import Stage1
    from duet.edit import Edit
    from duet.types import VisionStates


@dataclass(frozen=True)
class VisionZip:
    """Merge every patch that is not dominant.

    Args:
        score: `cls_row` (released code: attention of CLS, sum over heads) or `column_mean` (attention received from
            all tokens, paper Algorithm 1 line 2).
    """

    score: str = "cls_row"

    def __post_init__(self) -> None:
        check_score(self.score)

    contextual: ClassVar[bool] = True
    scope: ClassVar[str] = "unit"
    compiles: ClassVar[bool] = True

    @property
    def needs(self) -> frozenset[str]:
        """Score row and keys."""
        return frozenset({SCORES[self.score], "keys"})

    def __call__(self, states: VisionStates, budget: Stage1) -> Edit:
        """Reduce each picture to `dominant + contextual` tokens."""
        split = split_dominant(states, states.scores[SCORES[self.score]], budget)
        if split.contextual == 0:
            return assemble(states, split)
        assert states.keys is not None
        anchors, members = spaced(split.rest, split.contextual)
        cluster = nearest_anchor(states.keys, anchors, members)
        return assemble(states, split, anchors, members, cluster)
