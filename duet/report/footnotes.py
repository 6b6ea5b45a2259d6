"""The text below a table of the paper: numbered notes on cells, and the source of the measured values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from duet.eval.files.layout import questions_of
from duet.report.paper import HEADINGS, PaperRow, PaperTable
from duet.report.runs import JUDGED, Run


class Footnotes:
    """Numbers the notes of a table in the order of the cells that use them."""

    def __init__(self, table: PaperTable) -> None:
        self.table = table
        self._numbers: dict[int, int] = {}

    def mark(self, row: PaperRow, column: str | None = None) -> str:
        """` [1]` for a cell or row label with notes; else nothing."""
        about = [place for place, note in enumerate(self.table.notes) if note.covers(row, column)]
        return "".join(f" [{self._numbers.setdefault(place, len(self._numbers) + 1)}]" for place in about)

    @property
    def lines(self) -> list[str]:
        """The numbered notes, then those on the whole table."""
        numbered = [f"[{number}] {self.table.notes[place].text}" for place, number in self._numbers.items()]
        return numbered + [note.text for place, note in enumerate(self.table.notes) if place not in self._numbers]


def general_notes(table: PaperTable, runs: Sequence[Run]) -> list[str]:
    """Models, numbers of questions and partial values of the runs in the table."""
    if not runs:
        return [f"nothing measured yet: duet table {table.number} --plan prints the commands"]
    return [f"here: {', '.join(dict.fromkeys(run.model for run in runs))}", *_questions(runs), *_partial(runs)]


def _questions(runs: Sequence[Run]) -> Iterator[str]:
    """Numbers of questions, if they differ from the official data."""
    asked = {(run.task, run.asked) for run in runs if run.asked not in questions_of(run.task)}
    parts = [f"{HEADINGS[task][0]} {count} (official: {questions_of(task)[0]})" for task, count in sorted(asked)]
    if parts:
        yield f"not the paper's questions, do not compare absolute values: {', '.join(parts)}"


def _partial(runs: Sequence[Run]) -> Iterator[str]:
    cut = [run for run in runs if not run.complete]
    if cut:
        parts = ", ".join(
            f"{run.folder} ({run.answered} of {run.asked} answered{f', {run.subset}' if run.subset else ''})"
            for run in cut[:3]
        )
        yield f"* partial: {parts}{f' and {len(cut) - 3} more' if len(cut) > 3 else ''}"
    judges = sorted({run.metric for run in runs if run.task in JUDGED and run.value is not None})
    if judges:
        yield f"videos: {', '.join(judges)}; compare values of one judge only"
    silent = sorted({run.task for run in runs if run.task in JUDGED and run.value is None})
    if silent:
        yield f"not judged, so without value: {', '.join(silent)} (duet judge TASK --json .../judge.json)"
