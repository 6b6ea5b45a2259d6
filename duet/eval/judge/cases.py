"""Questions with the answers to be judged, and the request for each.

    test_q.json + test_a.json + predictions -> Cases

Question and prediction are paired by id and question, and the gold answer comes from the benchmark's file, never from
the prediction's line.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duet.errors import UserError
from duet.eval.benchmarks import get
from duet.eval.benchmarks.own import OwnQuestions
from duet.eval.benchmarks.video_qa import VideoQa
from duet.eval.judge.protocol import build_request, request_key
from duet.eval.scoring.matching import match
from duet.eval.scoring.predictions import read_predictions
from duet.eval.types import Sample


@dataclass(frozen=True)
class Case:
    """One question.

    Attributes:
        text: the predicted answer; None where it is missing.
        request: what is sent for it; None if there is nothing to judge.
        key: its name in the cache.
    """

    sample: Sample
    text: str | None = None
    request: dict[str, Any] | None = None
    key: str = ""


@dataclass(frozen=True)
class Cases:
    """All questions to be judged.

    Attributes:
        model: who is asked.
        rows: the questions, in official order.
        skipped: questions left out by a limit.
        duplicate: predictions beyond one per question (the last one counts).
        unknown: predictions that belong to no question.
    """

    task: str
    model: str
    rows: list[Case]
    skipped: int
    duplicate: int
    unknown: int


def read_cases(
    task: str,
    root: Path,
    predictions: Path,
    model: str,
    temperature: float | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Cases:
    """Read a benchmark and a prediction file.

    Args:
        root: the folder of all benchmarks, or the benchmark's own.
        limit: most questions; from more, a subset is drawn by `seed`, as for `duet eval --limit`.

    Raises:
        UserError: no video benchmark, unusable files, or no prediction belongs to the benchmark.
    """
    benchmark = get(task)
    if not isinstance(benchmark, (VideoQa, OwnQuestions)):
        raise UserError(
            f"{task} needs no judge: use `duet score {task}`; the judge is for tgif, msvd, msrvtt and files of your own"
        )
    folder = benchmark.find(root)
    samples, lines = benchmark.gold(folder), read_predictions(predictions)
    pairs = match(samples, lines, benchmark.names)
    if not pairs.answers:
        raise UserError(f"{predictions}: none of its {len(lines)} predictions belongs to a question in {folder}")
    chosen, rows = {sample.key for sample in benchmark.subset(samples, limit, seed)}, []
    for row, sample in enumerate(samples):
        if sample.key not in chosen:
            continue
        if row not in pairs.answers:
            rows.append(Case(sample))
            continue
        text = pairs.answers[row].text
        request = build_request(model, sample.question, sample.answer, text, temperature)
        rows.append(Case(sample, text, request, request_key(request)))
    return Cases(benchmark.name, model, rows, len(samples) - len(rows), pairs.duplicate, pairs.unknown)
