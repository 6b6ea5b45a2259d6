"""A representative subset of a benchmark: drawn evenly over its categories, by a seed.

The first questions of a file are not representative: the first 3000 of POPE are all adversarial. Here the categories
take turns, each with its next question (MME: a picture with both questions) in an order shuffled by the seed, until the
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
    """The subset: `questions` of the benchmark's `of`, drawn by `seed`."""

    questions: int
    of: int
    seed: int

    def __str__(self) -> str:
        return f"subset: {self.questions} of {self.of} questions, seed {self.seed}"

    def as_json(self) -> dict[str, int]:
        """The form in metrics.json."""
        return asdict(self)


def read_subset(found: Any, where: object) -> Subset | None:
    """The subset in the content of a metrics.json; None where all questions were asked.

    Raises:
        UserError: the entry is not a subset.
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
    """At most `limit` questions, in the order of `samples`.

    Args:
        samples: all questions.
        limit: most questions.
        seed: a different one draws other questions.
        category: of a question; all get equal shares as far as they have questions.
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
