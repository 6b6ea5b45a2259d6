"""Which budget is enough: the smallest whose score stays within a loss, from existing results.

    find_choices(Path("outputs/quickstart"), within=1.0)      # one `Choice` per model and method

A budget's score is the paper's average: mean over the tasks of score / score of the same model with all tokens, in
percent. Its interval is the one of `duet.report.bootstrap`, drawn over pictures and paired with the full model. A
budget is within the loss if the whole interval is, so an uncertain one is not chosen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from duet.budget import Budget, budgets, find_row
from duet.errors import UserError
from duet.eval.benchmarks import get
from duet.eval.running.decisions import read_decisions
from duet.eval.scoring.benchmark import FileBenchmark
from duet.eval.scoring.subset import Subset
from duet.report.bootstrap import DRAWS, interval, resampled_scores
from duet.report.experiment import check_same_questions, percentage
from duet.report.runs import JUDGED, Run, find_runs

Tasks = dict[str, Run]


@dataclass(frozen=True)
class Option:
    """A budget that was tried.

    Attributes:
        budget: counts, layers, ratios.
        tokens: visual tokens per layer.
        percent: average score, percent of the full model's; ends: of its 95 % interval.
    """

    budget: Budget
    tokens: float
    percent: float
    ends: tuple[float, float]

    @property
    def name(self) -> str:
        """The value for `--budget`: a name from `duet budget list`, or the numbers."""
        for name in budgets():
            if self.budget in find_row(name).settings.values():
                return name
        given = {
            field: value for field, value in vars(self.budget).items() if value and value != getattr(Budget(), field)
        }
        numbers = (f"{field}: {list(value) if isinstance(value, tuple) else value}" for field, value in given.items())
        return f"{{{', '.join(numbers)}}}"


@dataclass(frozen=True)
class Choice:
    """The result for a model and a method.

    Attributes:
        model, method: as given to `duet eval`; switches: non-default ones.
        tasks: benchmarks of the average; subsets: those of which only a part was asked.
        within: largest loss in percent.
        options: all budgets, smallest first.
        skipped: folders of budgets that lack a task.
    """

    model: str
    method: str
    switches: dict[str, str]
    tasks: tuple[str, ...]
    subsets: dict[str, Subset]
    within: float
    options: tuple[Option, ...]
    skipped: tuple[str, ...]

    @property
    def chosen(self) -> Option | None:
        """The smallest budget whose whole interval is within the loss; None if there is none."""
        return next((option for option in self.options if option.ends[0] >= 100 - self.within), None)

    @property
    def likely(self) -> Option | None:
        """The smallest budget whose score is within the loss, regardless of its interval."""
        return next((option for option in self.options if option.percent >= 100 - self.within), None)


def find_choices(
    folder: Path,
    within: float,
    models: Sequence[str] = (),
    methods: Sequence[str] = (),
    tasks: Sequence[str] = (),
    draws: int = DRAWS,
) -> list[Choice]:
    """Evaluate all results below a folder.

    Args:
        folder: of any depth, such as the output of `duet eval` or `duet sweep`.
        within: largest loss, percent of the full model's score.
        models: patterns; empty for all. methods: canonical names; empty for all.
        tasks: benchmarks to average over; empty: all with a result of the full model.
        draws: of the bootstrap.

    Raises:
        UserError: no results, no full model to compare with, duplicates, or other questions.
    """
    runs = find_runs(folder, models)
    if not runs:
        raise UserError(f"{folder} holds no results of `duet eval` or `duet sweep`")
    wanted = [get(task).name for task in tasks]
    found: list[Choice] = []
    for model in dict.fromkeys(run.model for run in runs):
        mine = [run for run in runs if run.model == model]
        full = _by_task([run for run in mine if run.method == "none"])
        names = tuple(wanted or full)
        missing = [task for task in names if task not in full]
        if not full or missing:
            raise UserError(
                f"{folder}: no result of {model} with all tokens on {', '.join(missing) or 'any benchmark'}"
            )
        compressed = [run for run in mine if run.method != "none" and (not methods or run.method in methods)]
        found += _choices(model, {task: full[task] for task in names}, compressed, within, draws)
    if not found:
        raise UserError(f"{folder}: no compressed results{' of ' + ', '.join(methods) if methods else ''}")
    return found


def _choices(model: str, full: Tasks, runs: Sequence[Run], within: float, draws: int) -> list[Choice]:
    groups: dict[tuple[str, tuple[tuple[str, str], ...]], dict[Budget, list[Run]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for run in runs:
        if run.task in full:
            groups[run.method, tuple(sorted(run.switches.items()))][run.budget].append(run)
    resampled = _Resampled(full, draws)
    subsets = {task: run.subset for task, run in full.items() if run.subset is not None}
    found = []
    for (method, switches), tried in groups.items():
        options, skipped = [], []
        for budget, members in tried.items():
            by_task = _by_task(members)
            if len(by_task) < len(full):
                skipped.append(str(members[0].folder.parent))
            else:
                options.append(resampled.option(budget, by_task))
        options.sort(key=lambda option: option.tokens)
        shown = (model, method, dict(switches), tuple(full), subsets, within, tuple(options), tuple(skipped))
        found.append(Choice(*shown))
    return found


class _Resampled:
    """Scores of the full model's runs on every draw, and of other runs on the same ones."""

    def __init__(self, full: Tasks, draws: int) -> None:
        self.full, self.draws = full, draws
        self.rows = {task: read_decisions(run.folder) for task, run in full.items()}
        self.scores = {task: self._scores(task, run) for task, run in full.items()}
        empty = [task for task, scores in self.scores.items() if (scores == 0).any()]
        if empty:
            raise UserError(f"{full[empty[0]].folder}: the full model has a score of 0 in a draw; ask more questions")

    def option(self, budget: Budget, runs: Tasks) -> Option:
        scores = [self._scores(task, runs[task]) for task in self.full]
        ends = interval(scores, [self.scores[task] for task in self.full])
        percent = percentage(_headlines(runs), _headlines(self.full))
        assert ends is not None and percent is not None
        average = float(np.mean([run.average for run in runs.values()]))
        return Option(budget, average, percent, ends)

    def _scores(self, task: str, run: Run) -> np.ndarray:
        rows = read_decisions(run.folder)
        check_same_questions({str(self.full[task].folder): self.rows[task], str(run.folder): rows})
        return resampled_scores({"run": rows}, cast(FileBenchmark, get(task)), self.draws)["run"]


def _headlines(runs: Mapping[str, Run]) -> dict[str, float]:
    """Scores by task; for video benchmarks the one without a judge, as in the draws."""
    return {task: run.metrics["contains"] if task in JUDGED else run.value or 0.0 for task, run in runs.items()}


def _by_task(runs: Sequence[Run]) -> Tasks:
    found: Tasks = {}
    for run in runs:
        if run.task in found:
            first = found[run.task].folder
            raise UserError(
                f"{first} and {run.folder} are results of the same kind: give a folder with only one of them"
            )
        found[run.task] = run
    return found
