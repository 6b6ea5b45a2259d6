"""Schedules: where tokens enter, leave and freeze, and how many are left. `Budget.solve` fits one to an average.

Each method has the schedule of its own release, and takes any other (`duet/budget/shapes.py`). The method chooses which
tokens are left; the solver finds how many. Layers are shares of the language model's depth, so a schedule made for 32
layers fits any depth.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from duet.budget.backbones import Backbone


@dataclass(frozen=True)
class Schedule:
    """The shape of a budget, without its counts.

    Attributes:
        name: for messages.
        stages: `(1, 2)`, `(1,)` or `(2,)`. With stage 1 the solver finds the count per picture, otherwise x in 0..1.
        layers: the layers of the drops, as shares of the depth, ascending.
        ratios: with stage 1, the share of the entered tokens left after each drop.
        powers: without stage 1, `x ** power` of the tokens is left.
        table: without stage 1 and powers, rows of ratios from x = 0 to x = 1, interpolated.
        settings: the settings of a named budget that fit this schedule: `both`, `stage1`, `stage2`, or None.
        late_ratios: instead of `ratios` on models that read their picture up to the last layers
            (`Backbone.reads_late`); empty for the same ones.
        entry: the share of the depth after which visual tokens enter.
        frozen: the share of the depth from which on they are frozen, or the layers where they are, as shares; None for
            nowhere.
        away: spans of layers in which they are away, each from one share of the depth to another.
    """

    name: str
    stages: tuple[int, ...]
    layers: tuple[float, ...] = ()
    ratios: tuple[float, ...] = ()
    powers: tuple[int, ...] = ()
    table: tuple[tuple[float, ...], ...] = ()
    settings: str | None = None
    late_ratios: tuple[float, ...] = ()
    entry: float = 0.0
    frozen: float | tuple[float, ...] | None = None
    away: tuple[tuple[float, float], ...] = ()

    @property
    def ranks(self) -> bool:
        """Whether a stage 2 has to choose tokens: not all of them go or stay at every drop."""
        ratios = (*self.ratios, *self.late_ratios)
        return bool(self.powers or self.table) or any(0 < ratio < 1 for ratio in ratios)

    @property
    def moves(self) -> bool:
        """Whether tokens enter late, freeze or are away: what needs neither stage."""
        return bool(self.entry or self.away) or self.frozen is not None

    def places(self, depth: int) -> tuple[int, ...]:
        """Layers after which tokens are dropped, of `depth` layers, halves rounded up; equal ones are merged."""
        counts = (min(depth - 1, max(1, int(layer * depth + 0.5))) for layer in self.layers)
        return tuple(sorted(set(counts)))

    def ratios_for(self, backbone: Backbone) -> tuple[float, ...]:
        """With stage 1, the shares left after each of `layers` on this model."""
        return self.late_ratios if self.late_ratios and backbone.reads_late else self.ratios

    def merged(self, values: Sequence[float], depth: int) -> tuple[float, ...]:
        """The values of `layers` at `places`; of drops at one layer, the smallest counts."""
        found: dict[int, float] = {}
        for layer, value in zip(self.layers, values, strict=True):
            place = min(depth - 1, max(1, int(layer * depth + 0.5)))
            found[place] = min(value, found.get(place, 1.0))
        return tuple(found[place] for place in sorted(found))

    def entry_at(self, depth: int) -> int:
        """Layers before the entry, of `depth` layers."""
        return min(depth - 1, int(self.entry * depth + 0.5))

    def frozen_at(self, depth: int) -> int | tuple[int, ...] | None:
        """The first frozen layer, or the frozen layers, of `depth` layers, as `Budget.frozen`."""
        if self.frozen is None:
            return None
        if isinstance(self.frozen, tuple):
            return tuple(sorted({min(depth - 1, int(layer * depth + 0.5)) for layer in self.frozen}))
        return min(depth - 1, int(self.frozen * depth + 0.5))

    def away_at(self, depth: int) -> tuple[int, ...]:
        """Layers in which tokens are away, of `depth` layers, as `Budget.away`; a short span may have none."""
        ends = [(int(start * depth + 0.5), min(depth - 1, int(end * depth + 0.5))) for start, end in self.away]
        return tuple(sorted({layer for start, end in ends for layer in range(start, end)}))

    def ratios_at(self, x: float, depth: int) -> tuple[float, ...]:
        """Shares left after each of `places`, without stage 1; of drops at one layer, the smallest share counts."""
        return self.merged([round(x**power, 6) for power in self.powers] or _between(self.table, x), depth)


def _between(table: Sequence[Sequence[float]], x: float) -> list[float]:
    """The table row at x; the first row is at 0 and the last at 1.

    Rounded up, so that a whole count is still that count after its share is truncated to tokens.
    """
    at = x * (len(table) - 1)
    below = min(int(at), len(table) - 2)
    rows = zip(table[below], table[below + 1], strict=True)
    return [ceil((low + (high - low) * (at - below)) * 1e6 - 1e-3) / 1e6 for low, high in rows]


def _of(layers: Sequence[int], depth: int = 32) -> tuple[float, ...]:
    return tuple(layer / depth for layer in layers)


#: Half of the tokens after half of the layers, none after three quarters (paper Tables 12-14). Qwen reads its picture
#: up to the last layers: a quarter stays there (paper Table 15).
DUET = Schedule("duet", (1, 2), (0.5, 0.75), ratios=(0.5, 0.0), settings="both", late_ratios=(0.5, 0.25))
#: Half of the tokens after half of the layers, a sixth after three quarters: 96 -> 48 -> 16 for an average of 64; on
#: Qwen, halves. No layer is without the picture, so long answers and text in pictures can still read it
#: (docs/beyond.md).
SAFE = Schedule("duet_safe", (1, 2), (0.5, 0.75), ratios=(0.5, 1 / 6), late_ratios=(0.5, 0.25))
#: All layers see the tokens that stage 1 leaves, contextual tokens included (VisionZip).
FLAT = Schedule("flat", (1,), settings="stage1")
#: All layers see the tokens that stage 1 leaves; none of them is contextual.
PLAIN = Schedule("plain", (1,))
#: x, x^2, x^3 after 2, 8 and 16 of 32 layers (from PyramidDrop's author, issue 29, for a given average).
PYRAMID = Schedule("pyramid", (2,), _of((2, 8, 16)), powers=(1, 2, 3), settings="stage2")
#: One drop after layer 2 (FastV's latency runs; DART).
ONE_DROP = Schedule("one drop", (2,), _of((2,)), powers=(1,))
#: A third of the entered tokens after half of the layers (VScan's 96 -> 32 after 16 of 32).
VSCAN = Schedule("vscan", (1, 2), (0.5,), ratios=(1 / 3,))
#: A half after 12, an eighth after 24 of 32 layers (TOPS, Table 9: 128 -> 64 -> 16).
TOPS = Schedule("tops", (1, 2), _of((12, 24)), ratios=(0.5, 0.125))
#: SparseVLM v1.5's lists for 64, 128 and 192, kept plus recycled of 576 tokens, after layers 3, 7 and 16.
SPARSEVLM = Schedule(
    "sparsevlm",
    (2,),
    _of((3, 7, 16)),
    table=tuple(
        tuple(count / 576 for count in row)
        for row in ((0, 0, 0), (82, 32, 18), (312, 117, 39), (309, 204, 113), (576, 576, 576))
    ),
)

#: FitPrune's released presets: percent of FLOPs saved -> tokens of 576 deleted in each of 32 layers (`statistics`
#: files).
_FITPRUNE = {
    10: (0, 0, 1, 2, 1, 0, 1, 4, 5, 5, 11, 4, 2, 2, 0, 0, 1, 1, 2, 4, 2, 10, 1, 1, 1, 2, 1, 1, 0, 1, 0, 0),
    20: (0, 0, 3, 3, 1, 1, 4, 16, 14, 15, 24, 4, 2, 3, 2, 0, 6, 0, 5, 13, 4, 19, 2, 1, 1, 1, 1, 1, 2, 1, 0, 0),
    30: (0, 0, 7, 6, 4, 5, 16, 40, 24, 21, 24, 4, 2, 3, 4, 0, 16, 0, 11, 26, 6, 32, 3, 1, 0, 1, 2, 2, 4, 0, 0, 0),
    40: (0, 1, 21, 13, 14, 11, 41, 53, 29, 15, 14, 5, 1, 4, 5, 1, 26, 1, 13, 28, 6, 27, 2, 1, 0, 0, 1, 1, 2, 0, 0, 0),
    50: (3, 7, 49, 24, 29, 17, 59, 41, 26, 8, 10, 6, 2, 5, 7, 2, 30, 3, 13, 27, 5, 23, 2, 1, 0, 0, 1, 1, 2, 0, 0, 0),
    55: (6, 17, 69, 31, 34, 19, 59, 30, 23, 6, 8, 7, 2, 5, 8, 2, 29, 4, 12, 25, 4, 19, 2, 1, 0, 0, 1, 0, 1, 0, 0, 0),
    60: (14, 33, 89, 36, 36, 20, 55, 21, 18, 4, 7, 5, 2, 5, 7, 4, 26, 5, 11, 24, 4, 18, 2, 1, 0, 0, 1, 0, 1, 0, 0, 0),
    70: (48, 79, 118, 41, 33, 17, 36, 9, 9, 2, 3, 2, 1, 3, 4, 8, 18, 7, 8, 20, 4, 13, 2, 1, 0, 0, 1, 0, 1, 0, 0, 0),
    80: (128, 127, 118, 35, 26, 8, 13, 3, 2, 1, 0, 0, 0, 2, 1, 8, 7, 8, 5, 11, 2, 6, 1, 1, 0, 0, 0, 1, 0, 0, 0, 0),
    90: (262, 153, 80, 19, 13, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 1, 2, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0),
}


def _left(deleted: Sequence[int], tokens: int = 576) -> tuple[float, ...]:
    """Share left after each layer except the last."""
    return tuple((tokens - sum(deleted[: layer + 1])) / tokens for layer in range(len(deleted) - 1))


#: FitPrune: drops tokens after every layer.
FITPRUNE = Schedule(
    "fitprune",
    (2,),
    _of(range(1, 32)),
    table=((0.0,) * 31, *(_left(_FITPRUNE[percent]) for percent in sorted(_FITPRUNE, reverse=True)), (1.0,) * 31),
)
