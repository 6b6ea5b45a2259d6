"""Types shared by benchmark files, prediction files and the scoring driver: frozen dataclasses and one protocol.

A benchmark turns its official files into `Sample`s, a run turns samples into `Prediction`s (one line of a file each), a
scorer pairs both into `Decided` rows and sums them up into a `Summary`; `Score` is what is printed and saved.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from duet.errors import UserError


class InputError(UserError):
    """A file that cannot be used. The message names the file (and line) and says what to do."""


class OfficialStop(Exception):
    """The official scorer stops on this input; the message says where and why."""


@dataclass(frozen=True)
class Sample:
    """One question of a benchmark.

    Attributes:
        id: the benchmark's own id; not unique in MME, TextVQA and SEED-Bench.
        key: unique within the benchmark: row number and id.
        question: prompt text as in the official question file, answer suffix included, without `<image>`.
        images: paths of the pictures, in order; empty for text-only questions and for video.
        video: path of the video, None for pictures.
        answer: the gold answer: a word, a letter, or the ten answers of TextVQA; None if the file gives none.
        names: that a prediction may use for this row, see `match`.
        group: for breakdowns of the metric: POPE category, MME subtask, `image` or `video`, ...
        meta: further fields of the annotation that the metric needs.
    """

    id: str
    key: str
    question: str
    images: tuple[str, ...] = ()
    video: str | None = None
    answer: Any = None
    names: tuple[Hashable, ...] = ()
    group: str = ""
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Prediction:
    """One line of a prediction file.

    Attributes:
        text: the model's answer, untouched.
        line: line of the file, counted from 1.
        id: `question_id` as text; None if the file has none.
        prompt: the prompt that the file recorded; None if it has none.
        doc: row number in the data set of lmms-eval, by which its sample files name a row; else None.
        category: `doc.category` of an lmms-eval sample file.
    """

    text: str
    line: int
    id: str | None = None
    prompt: str | None = None
    doc: int | None = None
    category: str | None = None


@dataclass(frozen=True)
class Decided:
    """A question with its answer and the decision on it.

    Attributes:
        parsed: the parsed text; None without an answer.
        value: points between 0 and 1; 0 without an answer.
        group: `Sample.group`, unless the official scorer groups otherwise.
    """

    sample: Sample
    prediction: Prediction | None
    parsed: str | None
    value: float
    group: str = ""


@dataclass(frozen=True)
class Summary:
    """The summary of a benchmark's decided rows.

    Attributes:
        headline: name of the metric that papers print, a key of `metrics`.
        metrics: full precision; in percent if the benchmark is reported in percent.
        tallies: the counts behind the metrics, e.g. `{"existence": {"questions": 60, "right": 58}}`.
        notes: for comparing the numbers.
    """

    headline: str
    metrics: dict[str, float]
    tallies: dict[str, dict[str, int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Counts:
    """`rows` questions asked; of these `scored` and `missing`; `duplicate` and `unknown` lines."""

    rows: int
    scored: int
    missing: int
    duplicate: int
    unknown: int


@dataclass(frozen=True)
class Score:
    """The result of one prediction file on one benchmark.

    Attributes:
        summary: the numbers of the chosen mode; a missing answer counts as wrong.
        mode: `default` or `official`.
        answered: headline over the answered questions only; None if nothing is missing or nothing is left.
        other: the headline of the other mode, or the reason why there is none.
        rule: what the official scorer does differently, in words; empty if it only differs in stopping.
        rows: one dict per prediction line, then one per missing question.
    """

    task: str
    version: int
    mode: str
    summary: Summary
    counts: Counts
    answered: float | None
    other: float | str
    rule: str
    rows: tuple[dict[str, Any], ...]

    @property
    def complete(self) -> bool:
        """Every question has an answer."""
        return self.counts.missing == 0

    @property
    def headline(self) -> float:
        """Value of the metric that papers print."""
        return self.summary.metrics[self.summary.headline]


class Benchmark(Protocol):
    """One benchmark. `root` is the folder of all benchmarks or the benchmark's own."""

    name: str
    version: int
    prompt_format: str
    max_new_tokens: int

    def load(self, root: Path) -> list[Sample]:
        """The questions to ask, in official order, with pictures and gold answers."""
        ...

    def record(self, sample: Sample, text: str) -> dict[str, Any]:
        """The line of the official scripts for this answer."""
        ...

    def score(self, root: Path, predictions: Iterable[Prediction], official: bool = False) -> Score:
        """Score a prediction file; `official` reproduces the official scorer, errors included."""
        ...
