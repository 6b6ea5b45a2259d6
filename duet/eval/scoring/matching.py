"""Pairs predictions with questions by name, never by position in the file.

Ids repeat (two questions per MME picture, TextVQA's ids are pictures, one SEED-Bench id has two questions), so every
sample and every prediction have several names, most specific first, e.g. `(id, question)` before `(id,)`. The first
name of a prediction that any sample bears decides. Samples that share a name are filled in file order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from duet.eval.types import Prediction, Sample

Names = Callable[[Prediction], Sequence[Hashable]]


@dataclass(frozen=True)
class Match:
    """The pairs.

    Attributes:
        answers: row of a sample -> its prediction; missing rows are absent.
        owners: per prediction, the row that it belongs to; None if no sample has its name.
    """

    answers: dict[int, Prediction]
    owners: list[int | None]

    @property
    def unknown(self) -> int:
        """Predictions that belong to no question."""
        return self.owners.count(None)

    @property
    def duplicate(self) -> int:
        """Extra predictions for a question."""
        return len(self.owners) - self.unknown - len(self.answers)


def match(samples: Sequence[Sample], predictions: Sequence[Prediction], names: Names) -> Match:
    """Assign every prediction to its question. If there are several, the last wins, as after a resumed run."""
    index: dict[Hashable, list[int]] = defaultdict(list)
    for row, sample in enumerate(samples):
        for name in sample.names:
            index[name].append(row)
    answers: dict[int, Prediction] = {}
    owners: list[int | None] = []
    surplus: dict[Hashable, int] = defaultdict(int)
    for prediction in predictions:
        name = next((name for name in names(prediction) if name in index), None)
        if name is None:
            owners.append(None)
            continue
        owner = next((row for row in index[name] if row not in answers), None)
        if owner is None:
            owner = index[name][surplus[name] % len(index[name])]
            surplus[name] += 1
        answers[owner] = prediction
        owners.append(owner)
    return Match(answers, owners)
