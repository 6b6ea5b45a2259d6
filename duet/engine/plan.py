"""How many tokens a prompt has after each boundary, as the host plans it from the budget and the processor's output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

#: Smallest step of the text's length in a compiled prompt, in tokens; longer texts leave at most an eighth empty.
STEP = 32


@dataclass(frozen=True)
class Drop:
    """The drop at one boundary.

    Attributes:
        counts: `[B, 2]` long, candidates and survivors of each row.
        rows: the same, on the host.
        width: in a compiled prompt, the length of the sequence after it.
        spared: in a compiled prompt, the most visual tokens of a row that are no candidates.
    """

    counts: Tensor
    rows: tuple[tuple[int, int], ...]
    width: int = 0
    spared: int = 0

    @property
    def survivors(self) -> int:
        """The most survivors of a row."""
        return max(count for _, count in self.rows)

    def survive(self, left: list[int]) -> list[int]:
        """Visual tokens of each row after it, given those before it."""
        pairs = zip(self.rows, left, strict=True)
        return [one - max(min(most, one) - count, 0) for (most, count), one in pairs]


@dataclass(frozen=True)
class Plan:
    """A compiled prompt: bounds of its lengths, the same for all rows. Prompts with equal keys share their code.

    Attributes:
        columns: of the prompt, padded on its right.
        text: tokens of a row outside its pictures.
        entry: tokens of a row that enter the language model.
        drops: by boundary.
        real: boundary (0: the entrance) -> real tokens of each row from there on.
        words: real tokens of each row outside its pictures.
        salient: `[B, columns]` bool, its salient tokens, which the host finds; None if they are not needed.
    """

    columns: int
    text: int
    entry: int
    drops: dict[int, Drop]
    real: dict[int, list[int]]
    words: list[int]
    salient: Tensor | None

    @property
    def key(self) -> Any:
        """What compiled code depends on, besides dtypes and devices."""
        drops = tuple((number, one.rows, one.width, one.spared) for number, one in self.drops.items())
        return len(self.words), self.columns, self.text, self.entry, drops

    def longest(self, start: int, absences: tuple[tuple[int, int], ...]) -> tuple[int, bool]:
        """Real tokens of the longest row in the layers from `start` to the next boundary, and whether all have them."""
        away = any(first <= start < after for first, after in absences)
        found = self.words if away else self.real[max(boundary for boundary in self.real if boundary <= start)]
        return max(found), min(found) == max(found)


def padded(text: int) -> int:
    """The length that a text of so many tokens is padded to."""
    step = max(STEP, 1 << max(text.bit_length() - 4, 0))
    return -(-text // step) * step
