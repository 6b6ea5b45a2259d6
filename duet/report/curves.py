"""Curves of training runs: loss, held-out loss and accuracies over steps, from their `metrics.jsonl`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from duet.errors import UserError
from duet.eval.reading import read_lines
from duet.report.canvas import PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOG = "metrics.jsonl"
PANEL = (6.2, 3.0)
#: Points that the smoothed line averages over, of many; of few a twelfth.
MEMORY = 50
STYLES = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class Curves:
    """One run: its name, and points (step, value) by the log's names."""

    name: str
    points: dict[str, list[tuple[float, float]]]

    def starting(self, prefix: str) -> dict[str, list[tuple[float, float]]]:
        """The curves whose name begins so."""
        return {name: points for name, points in self.points.items() if name.startswith(prefix)}


def read_curves(folder: Path) -> Curves:
    """The numbers in a run's log, by name; of a step that was logged twice, the last one.

    Raises:
        UserError: there is no log, or no loss in it.
    """
    path = folder if folder.is_file() else folder / LOG
    found: dict[str, dict[float, float]] = {}
    for _, line in read_lines(path):
        step: Any = line.get("step")
        for name, value in line.items():
            if name != "step" and _is_number(step) and _is_number(value):
                found.setdefault(name, {})[step] = value
    if "loss" not in found:
        raise UserError(f"{path} has no loss; was the training stopped before it was first logged?")
    return Curves(path.parent.name, {name: sorted(points.items()) for name, points in found.items()})


def draw_training(runs: Sequence[Curves]) -> Figure:
    """One panel for losses, one for the learning rate, and one for accuracies if any run has them; a color per run."""
    accuracy = any(run.starting("accuracy/") or run.starting("benchmark/") for run in runs)
    rows = 2 + accuracy
    figure = Figure(figsize=(PANEL[0], PANEL[1] * rows), layout="constrained")
    panels = figure.subplots(rows, 1, sharex=True)
    for number, run in enumerate(runs):
        color = PALETTE[number % len(PALETTE)]
        _draw_losses(panels[0], run, color, len(runs) > 1)
        _line(panels[1], run.points.get("learning_rate", []), color=color, label=run.name)
        if accuracy:
            _draw_accuracies(panels[2], run, color, len(runs) > 1)
    for axes, title in zip(panels, ("loss", "learning rate", "held-out answers, % right"), strict=False):
        axes.set_ylabel(title)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("step")
    for axes in (panels[0], *panels[2:]):
        axes.legend(fontsize=8, frameon=False)
    return figure


def _draw_losses(axes: Axes, run: Curves, color: Any, named: bool) -> None:
    name = f"{run.name}: " if named else ""
    points = run.points["loss"]
    axes.plot(*zip(*points, strict=True), color=color, alpha=0.25, linewidth=0.8)
    _line(axes, smoothed(points), color=color, label=f"{name}training", linewidth=1.6)
    for number, (kind, held_out) in enumerate(run.starting("held_out/").items()):
        style = STYLES[(number + 1) % len(STYLES)]
        label = f"{name}{kind.removeprefix('held_out/').replace('_', ' ')}"
        _line(axes, held_out, color=color, label=label, linestyle=style, marker="o", markersize=3)


def _draw_accuracies(axes: Axes, run: Curves, color: Any, named: bool) -> None:
    name = f"{run.name}: " if named else ""
    means = {
        kind: points
        for kind, points in {**run.starting("accuracy/"), **run.starting("benchmark/")}.items()
        if kind.startswith("benchmark/") or kind.endswith("mean") or "mean" not in " ".join(run.points)
    }
    for number, (kind, points) in enumerate(means.items()):
        percent = [(step, 100 * value if kind.startswith("accuracy/") else value) for step, value in points]
        label = f"{name}{kind.partition('/')[2].replace('_', ' ')}"
        style = STYLES[number % len(STYLES)]
        _line(axes, percent, color=color, label=label, linestyle=style, marker="o", markersize=3)
    axes.set_ylim(0, 100)


def _line(axes: Axes, points: Sequence[tuple[float, float]], **style: Any) -> None:
    if points:
        axes.plot(*zip(*points, strict=True), **style)


def smoothed(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Exponential mean with the start's bias removed."""
    fresh = max(1 / MEMORY, min(1.0, 12 / max(len(points), 1)))
    mean, weight, found = 0.0, 0.0, []
    for step, value in points:
        mean, weight = mean + fresh * (value - mean), weight + fresh * (1 - weight)
        found.append((step, mean / weight))
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
