"""A part of a benchmark that stands for the whole: drawn evenly over its categories, by a seed.

The first questions of a file will not do: the first 3000 of POPE are all adversarial. Here every category gives one
question (of MME one picture with both of its questions) after the other, in an order that the seed shuffles, until the
limit is reached. A larger limit adds questions and drops none; the same seed draws the same questions everywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any

from duet.errors import UserError
from duet.eval.reading import shown
from duet.eval.types import Sample


@dataclass(frozen=True)
class Subset:
    """What was drawn: `questions` of the `of` that the benchmark has, by `seed`."""

    questions: int
    of: int
    seed: int

    def __str__(self) -> str:
        return f"subset: {self.questions} of {self.of} questions, seed {self.seed}"

    def as_json(self) -> dict[str, int]:
        """As it stands in metrics.json."""
        return asdict(self)


def read_subset(found: Any, where: object) -> Subset | None:
    """The subset in the content of a metrics.json; None where all questions were asked.

    Raises:
        UserError: what stands there is none.
    """
    if found is None:
        return None
    if isinstance(found, dict) and all(isinstance(found.get(name), int) for name in ("questions", "of", "seed")):
        return Subset(found["questions"], found["of"], found["seed"])
    raise UserError(f"{where}: subset is {shown(found)}; was the file changed?")


def draw_subset(
    samples: Sequence[Sample],
    limit: int,
    seed: int,
    category: Callable[[Sample], str],
    unit: Callable[[Sample], Hashable],
) -> list[Sample]:
    """At most `limit` questions, in the order in which they stand in `samples`.

    Args:
        samples: all questions.
        limit: most questions.
        seed: another one draws others.
        category: of a question; all have equal shares, as far as they have questions.
        unit: questions of one unit are drawn together.
    """
    if limit >= len(samples):
        return list(samples)
    units: dict[tuple[str, Hashable], list[int]] = {}
    for number, sample in enumerate(samples):
        units.setdefault((category(sample), unit(sample)), []).append(number)
    categories: dict[str, list[list[int]]] = {}
    for (name, _), numbers in sorted(units.items(), key=lambda entry: _place(seed, samples[entry[1][0]].key)):
        categories.setdefault(name, []).append(numbers)
    order = sorted(categories, key=lambda name: _place(seed, name))
    chosen: list[int] = []
    for turn in zip_longest(*(categories[name] for name in order), fillvalue=[]):
        for numbers in turn:
            if len(chosen) + len(numbers) <= limit:
                chosen += numbers
    return [samples[number] for number in sorted(chosen)]


def _place(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()
