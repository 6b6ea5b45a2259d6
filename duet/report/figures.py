"""The paper's parameter studies drawn from results of `duet sweep`: Figure 3, 5, 7 and 8; and Figure 1 (b).

    cluster_width(runs, "textvqa")      # Figure 3: score against cluster width, a curve per budget
    dominant(runs, "textvqa")           # Figures 7, 8: score against k1 with k1 + k2 fixed, a curve per cluster width
    schedules(runs, "textvqa")          # Figure 5: score of every dropping schedule
    training_time(find_trainings(path)) # Figure 1 (b): time per training step that compression saves

The first three take `Run`s (`duet.report.runs.find_runs`) of one model and method; the dashed line is the model with
all tokens.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from duet.errors import UserError
from duet.eval.scoring.subset import Subset
from duet.method_table import find_method
from duet.report.canvas import PALETTE
from duet.report.paper import HEADINGS
from duet.report.plots import note_subsets
from duet.report.runs import Run
from duet.report.training import TrainingRun

Points = Sequence[tuple[float, float]]
MARKERS = "osD^vPX*"
#: Averages that differ by less than this share of the tokens count as one budget.
SAME_BUDGET = 0.02
BASELINE: dict[str, Any] = {"color": "0.45", "linestyle": "--", "linewidth": 1, "label": "all tokens"}


def cluster_width(runs: Sequence[Run], task: str) -> Figure:
    """Score against cluster width, a curve per budget."""
    swept = _swept(runs, task)
    groups = _by_average([run for run in swept if run.budget.stage1])
    curves = {
        f"{average:.0f} tokens": [(run.budget.cluster_width, _value(run)) for run in group]
        for average, group in groups.items()
    }
    figure, (axes,) = _figure(1)
    _draw(axes, curves, _full(runs, task), "patches per cluster (w)", task)
    note_subsets(figure, _parts(runs, task))
    return figure


def training_time(trainings: Sequence[TrainingRun], method: str | None = None) -> Figure:
    """Share of time per training step saved by each run, relative to the median without compression.

    Args:
        trainings: with and without compression.
        method: only runs of this one; None for all.

    Raises:
        UserError: no run without compression, or none with it.
    """
    full = [run.step_seconds for run in trainings if run.method == "none"]
    wanted = None if method is None else find_method(method).name
    reduced = [run for run in trainings if run.method != "none" and wanted in (None, run.method)]
    reduced.sort(key=lambda run: -run.visual_tokens)
    if not full or not reduced:
        raise UserError("training time needs runs of duet.train.run with and without compression, and their metrics")
    base = statistics.median(full)
    names = [f"{run.method}\n{run.visual_tokens:.0f} tokens" for run in reduced]
    figure, (axes,) = _figure(1)
    bars = axes.bar(names, [100 * (1 - run.step_seconds / base) for run in reduced], color=PALETTE[0], width=0.6)
    axes.bar_label(bars, fmt="%.0f %%")
    axes.margins(x=0.4 / len(reduced), y=0.12)
    axes.axhline(0, color="0.45", linewidth=1)
    axes.set_ylabel("time per training step saved, %")
    return figure


def dominant(runs: Sequence[Run], task: str) -> Figure:
    """Score against the number of dominant tokens (k1), a panel per k1 + k2, a curve per cluster width."""
    totals: dict[int, dict[int, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for run in _swept(runs, task):
        first, second = run.budget.dominant, run.budget.contextual
        if isinstance(first, int) and isinstance(second, int):
            totals[first + second][run.budget.cluster_width].append((first, _value(run)))
    swept = {total: curves for total, curves in totals.items() if len({x for c in curves.values() for x, _ in c}) > 1}
    if not swept:
        raise UserError("nothing to draw: no two results with the same dominant + contextual but different dominant")
    figure, panels = _figure(len(swept))
    for axes, (total, curves) in zip(panels, sorted(swept.items(), reverse=True), strict=True):
        named = {f"w = {width}": points for width, points in sorted(curves.items())}
        _draw(axes, named, _full(runs, task), "dominant tokens (k1)", task)
        axes.set_title(f"k1 + k2 = {total}", fontsize=10)
    note_subsets(figure, _parts(runs, task))
    return figure


def schedules(runs: Sequence[Run], task: str) -> Figure:
    """Score of every dropping schedule, most tokens first; crosses where every visual token is dropped."""
    swept = sorted((run for run in _swept(runs, task) if run.budget.layers), key=lambda run: run.average)
    figure, (axes,) = _figure(1, width=6.5, height=1.2 + 0.3 * len(swept))
    for label, marker, color, ends in (
        ("tokens in every layer", "o", PALETTE[0], False),
        ("none in the last layers", "x", PALETTE[4], True),
    ):
        places = [place for place, run in enumerate(swept) if (min(run.budget.ratios) == 0) == ends]
        axes.scatter([_value(swept[place]) for place in places], places, s=50, color=color, marker=marker, label=label)
    if (full := _full(runs, task)) is not None:
        axes.axvline(full, **BASELINE)
    axes.set_yticks(range(len(swept)), [_schedule(run) for run in swept], fontsize=8)
    layers = "; ".join(", ".join(map(str, layers)) for layers in sorted({run.budget.layers for run in swept}))
    axes.set_ylabel(f"share left after layers {layers}\n(tokens per layer, on average)", fontsize=9)
    axes.set_xlabel(HEADINGS[task][0])
    _tidy(axes)
    note_subsets(figure, _parts(runs, task))
    return figure


def _schedule(run: Run) -> str:
    return f"{' / '.join(f'{ratio:.2g}' for ratio in run.budget.ratios)}  ({run.average:.0f})"


def _swept(runs: Sequence[Run], task: str) -> list[Run]:
    """The compressed runs of a task.

    Raises:
        UserError: there are none, or of several methods or models.
    """
    found = [run for run in runs if run.task == task and run.method != "none" and run.value is not None]
    if not found:
        tasks = ", ".join(sorted({run.task for run in runs})) or "none"
        raise UserError(f"nothing to draw: no compressed results of {task} (there are results of: {tasks}); see --task")
    for what in ("model", "method"):
        several = sorted({getattr(run, what) for run in found})
        if len(several) > 1:
            raise UserError(f"results of several {what}s: {', '.join(several)}; choose by --{what}")
    return found


def _parts(runs: Sequence[Run], task: str) -> Iterator[tuple[str, Subset]]:
    yield from ((task, run.subset) for run in runs if run.task == task and run.subset is not None)


def _full(runs: Sequence[Run], task: str) -> float | None:
    return next((run.value for run in runs if run.task == task and run.method == "none"), None)


def _by_average(runs: Sequence[Run]) -> dict[float, list[Run]]:
    """Runs by budget, largest first; the key is the average of the first run of each."""
    groups: dict[float, list[Run]] = {}
    for run in sorted(runs, key=lambda run: -run.average):
        near = next((key for key in groups if abs(key - run.average) <= SAME_BUDGET * key), run.average)
        groups.setdefault(near, []).append(run)
    return groups


def _value(run: Run) -> float:
    assert run.value is not None
    return run.value


def _figure(panels: int, width: float = 5.5, height: float = 3.4) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width * panels, height), layout="constrained")
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])


def _draw(axes: Axes, curves: Mapping[str, Points], full: float | None, xlabel: str, task: str) -> None:
    for number, (label, points) in enumerate(curves.items()):
        color, marker = PALETTE[number % len(PALETTE)], MARKERS[number % len(MARKERS)]
        axes.plot(*zip(*sorted(points), strict=True), color=color, marker=marker, markersize=5, label=label)
    if full is not None:
        axes.axhline(full, **BASELINE)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(HEADINGS[task][0])
    _tidy(axes)


def _tidy(axes: Axes) -> None:
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
