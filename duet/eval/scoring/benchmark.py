"""The part of scoring that all benchmarks share: pair, decide, sum up, count missing, extra and unknown answers.

A benchmark file adds four things: `gold` (its annotation as samples), `names` (what a prediction calls a question),
`decide` (the parser and its decision on one answer) and `summarise` (the metric). If the original script pairs or
groups the rows differently, `official` reproduces it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from duet.errors import UserError
from duet.eval.reading import locate
from duet.eval.scoring.matching import Match, match
from duet.eval.scoring.percentages import shares
from duet.eval.scoring.question_files import joined, read_questions
from duet.eval.scoring.subset import Subset, draw_subset
from duet.eval.types import Counts, Decided, InputError, OfficialStop, Prediction, Sample, Score, Summary


class FileBenchmark(ABC):
    """Base of the benchmark files; class attributes name the files and the way questions are asked.

    Attributes:
        name: word on the command line.
        version: raised when a score would change.
        folder: of the benchmark under the root of all benchmarks.
        markers: files that identify the benchmark's own folder.
        questions: LLaVA's question file in that folder.
        pictures: folder of the pictures.
        prompt_format: name of the prompt format of the original evaluation.
        answer_field: field of the answer in its answer file and in `record`.
        rule: what the official scorer does differently, in words.
        headline_group: group of the headline; if a file answers no question outside it, only this part counts as
            asked. Empty: all groups.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    folder: ClassVar[str]
    markers: ClassVar[tuple[str, ...]]
    questions: ClassVar[str]
    pictures: ClassVar[str]
    prompt_format: ClassVar[str] = "vicuna_v1"
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

    def load_subset(self, root: Path, limit: int | None, seed: int = 0) -> tuple[list[Sample], Subset | None]:
        """The questions, or a subset if there are more than `limit`; and the subset, None for all.

        Raises:
            InputError: files that cannot be used.
            UserError: the limit leaves no question.
        """
        samples = self.load(root)
        bare = [sample for sample in samples if sample.answer is None]
        if bare:
            raise InputError(
                f"{self.find(root)}: {len(bare)} of {len(samples)} questions of {self.name} have no gold answer (the "
                f"first: {bare[0].id}): are question file and annotation of the same release?"
            )
        if limit is None or limit >= len(samples):
            return samples, None
        drawn = self.subset(samples, limit, seed)
        return drawn, Subset(len(drawn), len(samples), seed)

    def subset(self, samples: Sequence[Sample], limit: int | None, seed: int) -> list[Sample]:
        """At most `limit` of the questions, see `duet.eval.scoring.subset`; None: all.

        Raises:
            UserError: the limit leaves no question.
        """
        if limit is None:
            return list(samples)
        drawn = draw_subset(samples, limit, seed, self.category, self.unit)
        if not drawn:
            raise UserError(f"{self.name}: no question left with limit {limit}; give a larger one")
        return drawn

    def category(self, sample: Sample) -> str:
        """The category that a subset is drawn evenly over."""
        return sample.group

    def unit(self, sample: Sample) -> Hashable:
        """Questions of one unit are drawn together, or not at all."""
        return sample.key

    def record(self, sample: Sample, text: str) -> dict[str, Any]:
        """A line of LLaVA's answer file."""
        return {"question_id": sample.id, "prompt": sample.question, self.answer_field: text}

    @abstractmethod
    def gold(self, folder: Path) -> list[Sample]:
        """The annotation, in official order."""

    @abstractmethod
    def names(self, prediction: Prediction) -> Sequence[Hashable]:
        """The names that the prediction may use for its question, most specific first."""

    @abstractmethod
    def decide(self, sample: Sample, text: str) -> tuple[str, float]:
        """The parsed answer and its points (0 to 1)."""

    @abstractmethod
    def summarise(self, decided: Sequence[Decided]) -> Summary:
        """The metric over decided rows."""

    def sums(self, decided: Sequence[Decided]) -> dict[str, float]:
        """The headline's sums over all questions about one picture; sums of pictures can be added."""
        return {"points": sum(row.value for row in decided), "questions": len(decided)}

    def headline(self, sums: Mapping[str, np.ndarray]) -> np.ndarray:
        """The headline from added `sums`: arrays of one shape in, such an array out. 0 / 0 is 0."""
        return shares(sums["points"], sums["questions"])

    def check(self, folder: Path, gold: Sequence[Sample]) -> None:  # noqa: B027 - most annotations need no check
        """Reject an annotation that would give a wrong number.

        Raises:
            InputError: it names the problem.
        """

    def official(
        self, folder: Path, predictions: Sequence[Prediction], decided: Sequence[Decided]
    ) -> Sequence[Decided]:
        """The rows as the official scorer pairs and decides them.

        Raises:
            OfficialStop: it fails on this input.
        """
        return decided

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
        decided = [self._decided(sample, pairs.answers.get(row)) for row, sample in enumerate(gold)]
        ours, theirs = self._ours(folder, decided), self._official(folder, lines, decided)
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
            answered=self._answered(decided) if scored < len(gold) else None,
            other=other if isinstance(other, str) else other.metrics[other.headline],
            rule=self.rule,
            rows=tuple(self._rows(gold, lines, pairs)),
        )

    def _asked(self, gold: list[Sample], lines: list[Prediction]) -> tuple[list[Sample], tuple[str, ...]]:
        """All rows, or only the headline's part if the file answers no other question."""
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

    def _decided(self, sample: Sample, prediction: Prediction | None) -> Decided:
        parsed, value = (None, 0.0) if prediction is None else self.decide(sample, prediction.text)
        return Decided(sample, prediction, parsed, value, sample.group)

    def _ours(self, folder: Path, decided: list[Decided]) -> Summary | str:
        try:
            self.check(folder, [row.sample for row in decided])
        except InputError as error:
            return str(error)
        return self.summarise(decided)

    def _official(self, folder: Path, lines: list[Prediction], decided: list[Decided]) -> Summary | str:
        try:
            return self.summarise(self.official(folder, lines, decided))
        except OfficialStop as stop:
            return str(stop)

    def _answered(self, decided: list[Decided]) -> float | None:
        rows = [row for row in decided if row.prediction is not None]
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
                yield about | {"status": status} | decision(self._decided(gold[owner], line))
        for row, sample in enumerate(gold):
            if row not in pairs.answers:
                about = {"line": None, "question_id": sample.id, "text": None, "status": "missing"}
                yield about | decision(self._decided(sample, None))


def decide_lines(benchmark: FileBenchmark, samples: Sequence[Sample], lines: Sequence[dict[str, Any]]) -> list[Decided]:
    """Every question with its answer (a line of predictions.jsonl) and the decision on it; one without is wrong."""
    said = {line["key"]: line[benchmark.answer_field] for line in lines}
    decided = []
    for sample in samples:
        text = said.get(sample.key)
        if text is None:
            decided.append(Decided(sample, None, None, 0.0, sample.group))
        else:
            prediction = Prediction(text, 0, sample.id, sample.question)
            decided.append(Decided(sample, prediction, *benchmark.decide(sample, text), sample.group))
    return decided


def decision(row: Decided) -> dict[str, Any]:
    """The parsed answer, and the gold one."""
    return {
        "key": row.sample.key,
        "question": row.sample.question,
        "parsed": row.parsed,
        "gold": row.sample.answer,
        "correct": row.value == 1,
        "score": row.value,
    }
