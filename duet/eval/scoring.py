"""The part of scoring that all benchmarks share: pair, judge, sum up, count what is missing, too much or foreign.

A benchmark file adds four things: `gold` (its annotation as samples), `names` (what a prediction calls a question),
`judge` (the parser and its decision on one answer) and `summarise` (the metric). Where the original script pairs or
groups the rows in another way, `official` does it that way.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from duet.eval.matching import Match, match
from duet.eval.reading import locate
from duet.eval.samples import joined, read_questions
from duet.eval.types import Counts, InputError, Judged, OfficialStop, Prediction, Sample, Score, Summary


class FileBenchmark(ABC):
    """Base of the benchmark files; class attributes say where things lie and how questions are asked.

    Attributes:
        name: word on the command line.
        version: changes when a score would.
        folder: where the benchmark lies under the root of all benchmarks.
        markers: files that tell the benchmark's own folder.
        questions: LLaVA's question file in that folder.
        pictures: folder of the pictures.
        conversation: chat template of the original evaluation.
        answer_field: where its answer file, and `record`, put the answer.
        rule: what the official scorer does differently, in words.
        headline_group: group that the headline is about; where a file answers no question outside it, only this part
            counts as asked. Empty: all groups.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    folder: ClassVar[str]
    markers: ClassVar[tuple[str, ...]]
    questions: ClassVar[str]
    pictures: ClassVar[str]
    conversation: ClassVar[str] = "vicuna_v1"
    answer_field: ClassVar[str] = "text"
    max_new_tokens: ClassVar[int] = 128
    rule: ClassVar[str] = ""
    headline_group: ClassVar[str] = ""

    def find(self, root: Path) -> Path:
        """The benchmark's own folder.

        Raises:
            InputError: it is neither `root` nor in it.
        """
        return locate(Path(root), self.folder, self.markers)

    def load(self, root: Path) -> list[Sample]:
        """The rows of LLaVA's question file, with the gold answers of the annotation."""
        folder = self.find(root)
        asked = list(read_questions(folder / self.questions, folder / self.pictures))
        gold = self.gold(folder)
        lines = [Prediction("", row, sample.id, sample.question) for row, sample in enumerate(asked)]
        owners = match(gold, lines, self.names).owners
        return [
            joined(sample, None if owner is None else gold[owner]) for sample, owner in zip(asked, owners, strict=True)
        ]

    def record(self, sample: Sample, text: str) -> dict[str, Any]:
        """A line of LLaVA's answer file."""
        return {"question_id": sample.id, "prompt": sample.question, self.answer_field: text}

    @abstractmethod
    def gold(self, folder: Path) -> list[Sample]:
        """The annotation, in official order."""

    @abstractmethod
    def names(self, prediction: Prediction) -> Sequence[Hashable]:
        """What the prediction may call its question, most telling name first."""

    @abstractmethod
    def judge(self, sample: Sample, text: str) -> tuple[str, float]:
        """The parsed answer and its points (0 to 1)."""

    @abstractmethod
    def summarise(self, judged: Sequence[Judged]) -> Summary:
        """The metric over judged rows."""

    def check(self, folder: Path, gold: Sequence[Sample]) -> None:  # noqa: B027 - most annotations need no check
        """Refuse an annotation that would give a wrong number.

        Raises:
            InputError: saying what does not fit.
        """

    def official(self, folder: Path, predictions: Sequence[Prediction], judged: Sequence[Judged]) -> Sequence[Judged]:
        """The rows as the official scorer pairs and judges them.

        Raises:
            OfficialStop: it does not get through this input.
        """
        return judged

    def score(self, root: Path, predictions: Iterable[Prediction], official: bool = False) -> Score:
        """Score a prediction file. A missing answer counts as wrong.

        Raises:
            InputError: files that cannot be used, no prediction that belongs here, or `official` and its scorer stops.
        """
        folder, lines = self.find(root), list(predictions)
        gold = self.gold(folder)
        if not official:
            self.check(folder, gold)
        gold, note = self._asked(gold, lines)
        pairs = match(gold, lines, self.names)
        if not pairs.answers:
            raise InputError(self._foreign(folder, lines))
        judged = [self._judged(sample, pairs.answers.get(row)) for row, sample in enumerate(gold)]
        ours, theirs = self._ours(folder, judged), self._official(folder, lines, judged)
        chosen, other = (theirs, ours) if official else (ours, theirs)
        if isinstance(chosen, str):
            raise InputError(f"the official scorer of {self.name} stops here: {chosen}; score without --official")
        scored = len(pairs.answers)
        return Score(
            task=self.name,
            version=self.version,
            mode="official" if official else "default",
            summary=replace(chosen, notes=(*chosen.notes, *note)),
            counts=Counts(len(gold), scored, len(gold) - scored, pairs.duplicate, pairs.unknown),
            answered=self._answered(judged) if scored < len(gold) else None,
            other=other if isinstance(other, str) else other.metrics[other.headline],
            rule=self.rule,
            rows=tuple(self._rows(gold, lines, pairs)),
        )

    def _asked(self, gold: list[Sample], lines: list[Prediction]) -> tuple[list[Sample], tuple[str, ...]]:
        """All rows, or the headline's part alone where the file answers no other question."""
        part = [sample for sample in gold if sample.group == self.headline_group]
        rest = [sample for sample in gold if sample.group != self.headline_group]
        if not (self.headline_group and part and rest) or match(rest, lines, self.names).answers:
            return gold, ()
        return part, (f"no answer outside the {self.headline_group} questions: the other {len(rest)} are left out",)

    def _foreign(self, folder: Path, lines: list[Prediction]) -> str:
        first = f" (the first has id {lines[0].id!r}, prompt {lines[0].prompt!r})" if lines else ""
        return (
            f"none of the {len(lines)} predictions belongs to a question of {self.name} in {folder}{first}: "
            "another benchmark, or another release of it?"
        )

    def _judged(self, sample: Sample, prediction: Prediction | None) -> Judged:
        parsed, value = (None, 0.0) if prediction is None else self.judge(sample, prediction.text)
        return Judged(sample, prediction, parsed, value, sample.group)

    def _ours(self, folder: Path, judged: list[Judged]) -> Summary | str:
        try:
            self.check(folder, [row.sample for row in judged])
        except InputError as error:
            return str(error)
        return self.summarise(judged)

    def _official(self, folder: Path, lines: list[Prediction], judged: list[Judged]) -> Summary | str:
        try:
            return self.summarise(self.official(folder, lines, judged))
        except OfficialStop as stop:
            return str(stop)

    def _answered(self, judged: list[Judged]) -> float | None:
        rows = [row for row in judged if row.prediction is not None]
        if self.headline_group and not any(row.group == self.headline_group for row in rows):
            return None
        summary = self.summarise(rows)
        return summary.metrics[summary.headline]

    def _rows(self, gold: list[Sample], lines: list[Prediction], pairs: Match) -> Iterator[dict[str, Any]]:
        """Per-row output: every prediction with its decision, then the questions without one."""
        for line, owner in zip(lines, pairs.owners, strict=True):
            about = {"line": line.line, "question_id": line.id, "text": line.text}
            if owner is None:
                yield about | {"status": "unknown"}
            else:
                status = "scored" if pairs.answers[owner] is line else "duplicate"
                yield about | {"status": status} | decision(self._judged(gold[owner], line))
        for row, sample in enumerate(gold):
            if row not in pairs.answers:
                about = {"line": None, "question_id": sample.id, "text": None, "status": "missing"}
                yield about | decision(self._judged(sample, None))


def decision(row: Judged) -> dict[str, Any]:
    """What the parser made of an answer, beside the gold one."""
    return {
        "key": row.sample.key,
        "question": row.sample.question,
        "parsed": row.parsed,
        "gold": row.sample.answer,
        "correct": row.value == 1,
        "score": row.value,
    }
