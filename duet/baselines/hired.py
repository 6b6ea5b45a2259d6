"""HiRED (AAAI 2025): keep the patches that CLS attends to, and divide the budget of a picture among its crops.

hasanar1f/HiRED @ 502d6dd, `modeling_llava.py` and `modeling_llava_next.py`. Content score: the CLS row of the tower's
second-to-last layer, sum over heads. A whole picture keeps the best patches in raster order, before the projector. For
a picture in crops, half of the budget (`alpha`) goes to the crop with the whole picture; the rest is divided by the
positions in that crop that the CLS row of the tower's first layer attends to.

The released treatment of crops, and the switch `tiles`:

* `released`: it is meant to count the best first-layer positions per crop, but cuts the whole picture's raster into
  consecutive strips, one per crop, so a crop of a 2 x 2 grid gets the share of six rows of the picture. Shares are
  truncated to whole numbers and to the size of a crop, and the remainder is lost.
* `fixed`: positions are counted in the part of the picture that a crop shows, and the remainder goes to the best
  patches of all crops that are not full.

The released code spends budget on padding that it removes later. Here crops have no padding, and no crop gets more than
it has. Frames of a video share the budget evenly; the paper has no videos.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import TYPE_CHECKING, ClassVar

import torch

from duet.edit import NONE, Edit
from duet.ops.gather import close_gaps
from duet.ops.reduce import SCORES, allowance, check_score
from duet.ops.select import keep_best, top_and_rest
from duet.ops.similarity import exact

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from duet.budget import Stage1
    from duet.types import VisionStates

#: Share of the budget that the whole picture gets.
ALPHA = 0.5
TILES = ("released", "fixed")


def select(*, keep: int, cls_attention: Tensor) -> Tensor:
    """The patches that CLS attends to most.

    Args:
        keep: number of patches to keep.
        cls_attention: `[B, N]`, sum over heads.

    Returns:
        `[B, keep]` ascending.
    """
    return top_and_rest(exact(cls_attention), keep)[0]


def tile_budgets(
    *,
    keep: int,
    cls_attention_first: Tensor,
    partition: tuple[int, int],
    grids: Sequence[tuple[int, int]] | None = None,
    alpha: float = ALPHA,
    tiles: str = TILES[0],
) -> Tensor:
    """Number of patches that each crop of a picture keeps.

    Args:
        keep: budget of all crops together; the released code's `int(crops * 576 * rate)`.
        cls_attention_first: `[B, N]` CLS row of the tower's first layer over the crop of the whole picture.
        partition: rows and columns of the other crops.
        grids: rows and columns of the patches of each crop, the whole picture first; None for squares of N.
        alpha: share of the whole picture.
        tiles: `released` or `fixed`, see the module docstring; both truncate shares.

    Returns:
        `[B, 1 + rows * columns]` long, the whole picture first; the sum may be below `keep`.
    """
    patches = cls_attention_first.shape[1]
    crops = partition[0] * partition[1]
    if grids is None:
        grids = [(isqrt(patches), isqrt(patches))] * (1 + crops)
    sizes = torch.tensor([rows * columns for rows, columns in grids], device=cls_attention_first.device)
    whole = min(int(keep * alpha), patches)
    rest = min(keep - whole, sum(rows * columns for rows, columns in grids[1:]))
    seen = top_and_rest(exact(cls_attention_first), int(patches * (1 - alpha)))[0]
    if tiles == "released":
        crop = torch.arange(patches, device=seen.device) * crops // patches
    else:
        crop = _crop_of(partition, grids).to(seen.device)
    where = crop[seen]
    counts = torch.zeros(len(seen), crops, device=seen.device).scatter_add(1, where, torch.ones_like(where).float())
    # in float32, as released: rounding may put an exact whole share just below it
    shares = (counts / counts.sum(-1, keepdim=True).clamp_min(1) * rest).long()
    return torch.cat([torch.full_like(shares[:, :1], whole), torch.minimum(shares, sizes[1:])], dim=1)


def _crop_of(partition: tuple[int, int], grids: Sequence[tuple[int, int]]) -> Tensor:
    """The crop that shows each patch of the whole picture, `[N]`; crops may be of different sizes."""
    lines = []
    for size, parts in (
        (grids[0][0], [grids[1 + row * partition[1]][0] for row in range(partition[0])]),
        (grids[0][1], [grids[1 + column][1] for column in range(partition[1])]),
    ):
        ends = torch.tensor(parts).cumsum(0)
        centres = (2 * torch.arange(size) + 1) * ends[-1]
        lines.append(torch.bucketize(centres, ends * 2 * size, right=True))
    return (lines[0][:, None] * partition[1] + lines[1]).flatten()


def choose(*, cls_attention: Tensor, unit: Tensor, counts: Tensor, fill: int | None = None) -> Tensor:
    """The best patches of each crop.

    Args:
        cls_attention: `[B, N]` of all crops in turn.
        unit: `[N]` long, the crop of each patch.
        counts: `[B, U]` long, how many each crop keeps.
        fill: fill up to this many with the best of all other patches; None for no filling.

    Returns:
        `[B, N]` bool.
    """
    scores = exact(cls_attention)
    chosen = torch.zeros_like(scores, dtype=torch.bool)
    for number in range(counts.shape[1]):
        chosen = chosen | keep_best(scores, (unit == number).expand_as(chosen), counts[:, number])
    if fill is None:
        return chosen
    return chosen | keep_best(scores, ~chosen, fill - chosen.sum(-1))


@dataclass(frozen=True)
class HiRED:
    """Keep the best patches of every crop, with one budget per picture or video.

    Args:
        tiles: `released` or `fixed`, see the module docstring.
        score: `cls_row`, or `column_mean` for towers without CLS; for both layers.
    """

    tiles: str = TILES[0]
    score: str = "cls_row"

    scope: ClassVar[str] = "medium"
    contextual: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_score(self.score)
        if self.tiles not in TILES:
            raise ValueError(f"tiles is {self.tiles!r}; choose {' or '.join(TILES)}")

    @property
    def needs(self) -> frozenset[str]:
        """The score row of the feature layer, and of the first one."""
        return frozenset({SCORES[self.score], f"{SCORES[self.score]}_first"})

    def __call__(self, states: VisionStates, budget: Stage1) -> Edit:
        """Divide the budget, and keep the best of each unit."""
        assert states.unit is not None
        scores, keep = states.scores[SCORES[self.score]], allowance(states, budget)
        fill = keep if self.tiles == "fixed" else None
        counts = self._counts(states, keep)
        chosen = choose(cls_attention=scores, unit=states.unit, counts=counts, fill=fill)
        index, real = close_gaps(chosen, keep, left=False)
        return Edit.keep(torch.where(real, index, NONE), chosen.shape[1])

    def _counts(self, states: VisionStates, keep: int) -> Tensor:
        """`[B, U]` long."""
        sizes = [height * width for height, width in states.unit_grids]
        batch, device = len(states.features), states.features.device
        if states.role != "tiles":
            shares = [(number + 1) * keep // len(sizes) - number * keep // len(sizes) for number in range(len(sizes))]
            return torch.tensor(shares, device=device).expand(batch, -1)
        first = states.scores[f"{SCORES[self.score]}_first"][:, : sizes[0]]
        return tile_budgets(
            keep=keep,
            cls_attention_first=first,
            partition=(
                len({row for row, _ in states.unit_offsets[1:]}),
                len({column for _, column in states.unit_offsets[1:]}),
            ),
            grids=states.unit_grids,
            tiles=self.tiles,
        )
