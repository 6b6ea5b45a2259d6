"""Sums up the verdicts: the official metric, and how many verdicts it covers.

Official (Video-LLaVA@984e65b videollava/eval/video/eval_video_qa.py): accuracy = yes / (yes + no), here in percent;
score = sum of the scores / replies, where an unreadable reply adds 0 and stays in the denominator.
Video-LLaVA asks again for ever if a reply is unreadable; here it is counted after some attempts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from duet.eval.judge.cases import Cases
from duet.eval.judge.run import Outcome
from duet.eval.scoring.percentages import percent

VERSION = 1  # raise it when a result would change


@dataclass(frozen=True)
class JudgeScore:
    """The result of one prediction file with one judge.

    Attributes:
        metrics: `accuracy` and `score` as the official script computes them, over what was judged; `accuracy_all_rows`
            and `score_all_rows` with 0 for every row without verdict, without rows that a limit left out.
        counts: questions (`rows` = judged + missing + unreadable + failed + skipped); of the judged `cached`, without
            a call, and `cut`, with a fraction as score; `duplicate` and `unknown` predictions.
        tallies: `yes`, `no` and `score_sum`.
        served: judged rows by the model name that the endpoint gave.
    """

    task: str
    model: str
    metrics: dict[str, float]
    counts: dict[str, int]
    tallies: dict[str, int]
    served: dict[str, int]

    @property
    def complete(self) -> bool:
        """Every question has a verdict."""
        return self.counts["judged"] == self.counts["rows"]

    @property
    def headline(self) -> str:
        """The headline metric: a partial run never shows the share of the judged rows alone."""
        return "accuracy" if self.complete else "accuracy_all_rows"


def sum_up(cases: Cases, outcomes: Sequence[Outcome]) -> JudgeScore:
    """Metrics and counts over one outcome per row of `cases`."""
    status = Counter(outcome.status for outcome in outcomes)
    judged = [outcome for outcome in outcomes if outcome.verdict is not None]
    verdicts = [outcome.verdict for outcome in judged if outcome.verdict is not None]
    yes, score_sum = sum(verdict.right for verdict in verdicts), sum(verdict.score for verdict in verdicts)
    replied = len(verdicts) + status["unreadable"]
    metrics = {
        "accuracy": percent(yes, len(verdicts)),
        "score": score_sum / replied if replied else 0.0,
        "accuracy_all_rows": percent(yes, len(outcomes)),
        "score_all_rows": score_sum / len(outcomes) if outcomes else 0.0,
    }
    counts = {
        "rows": len(outcomes) + cases.skipped,
        **{name: status[name] for name in ("judged", "missing", "unreadable", "failed")},
        "skipped": cases.skipped,
        "cached": sum(outcome.cached for outcome in judged),
        "cut": sum(verdict.cut for verdict in verdicts),
        "duplicate": cases.duplicate,
        "unknown": cases.unknown,
    }
    tallies = {"yes": yes, "no": len(verdicts) - yes, "score_sum": score_sum}
    served = Counter(outcome.replies[-1].served or "not told" for outcome in judged)
    return JudgeScore(cases.task, cases.model, metrics, counts, tallies, dict(served.most_common()))


def notes(score: JudgeScore) -> list[str]:
    """Notes for comparing the numbers."""
    counts = score.counts
    parts = {
        "missing": "have no prediction",
        "unreadable": "got no readable reply",
        "failed": "could not be judged",
        "skipped": "were left out by --limit: this is a subset, drawn by --seed",
    }
    lines = [f"{counts[name]} of {counts['rows']} rows {what}" for name, what in parts.items() if counts[name]]
    if counts["cut"]:
        lines.append(f"{counts['cut']} scores were fractions, cut to integers as the official script does")
    if len(score.served) > 1:
        lines.append("several model versions answered: " + ", ".join(f"{n} x{c}" for n, c in score.served.items()))
    return [*lines, "judge versions move this accuracy by up to 10 points: compare numbers of one judge only"]


def as_json(score: JudgeScore) -> dict[str, Any]:
    """The result in the form that is saved."""
    return {
        "task": score.task,
        "version": VERSION,
        "complete": score.complete,
        "headline": {"name": score.headline, "value": score.metrics[score.headline], "judge": score.model},
        "metrics": score.metrics,
        "counts": score.counts,
        "tallies": score.tallies,
        "served": score.served,
        "notes": notes(score),
    }


def row_facts(outcome: Outcome) -> dict[str, Any]:
    """One line of the per-row file."""
    verdict, last = outcome.verdict, outcome.replies[-1] if outcome.replies else None
    return {
        "question_id": outcome.case.sample.id,
        "key": outcome.case.sample.key,
        "question": outcome.case.sample.question,
        "answer": outcome.case.sample.answer,
        "prediction": outcome.case.text,
        "status": outcome.status,
        "pred": None if verdict is None else ("yes" if verdict.right else "no"),
        "score": None if verdict is None else verdict.score,
        "cached": outcome.cached,
        "replies": len(outcome.replies),
        "reply": last.text if last else None,
        "served": last.served if last else None,
        "reason": outcome.reason or None,
    }
