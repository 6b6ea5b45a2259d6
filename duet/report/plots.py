"""Accuracy versus average tokens: a curve per method with its 95 % band, all tokens dashed, a panel per model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from duet.eval.scoring.subset import Subset
from duet.report.canvas import PALETTE
from duet.report.experiment import Result
from duet.report.paper import HEADINGS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = "osD^vP"
PANEL = (4.6, 3.8)


def draw_accuracy(results: Sequence[Result], base: str) -> Figure:
    """The figure; runs without average percentage are left out.

    Args:
        results: of all or some runs of an experiment.
        base: name of the reference model.
    """
    models = list(dict.fromkeys(result.cell.model for result in results))
    figure = Figure(figsize=(PANEL[0] * len(models), PANEL[1]), layout="constrained")
    panels = figure.subplots(1, len(models), sharey=True, squeeze=False)[0]
    methods = [name for name in dict.fromkeys(result.cell.method for result in results) if name != "none"]
    for axes, model in zip(panels, models, strict=True):
        _draw_panel(axes, [result for result in results if result.cell.model == model], methods)
        axes.set_title(model, fontsize=11)
    panels[0].set_ylabel(f"average score, % of {base}\nwith all tokens")
    note_subsets(figure, (part for result in results for part in result.subsets.items()))
    handles, labels = panels[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure


def note_subsets(figure: Figure, parts: Iterable[tuple[str, Subset]]) -> None:
    """Mark in the title that values are of a subset; `parts` are (benchmark, subset)."""
    lines = dict.fromkeys(f"{HEADINGS[task][0]}, {part}" for task, part in parts)
    if lines:
        figure.suptitle("\n".join(lines), fontsize=8, color="0.35")


def _draw_panel(axes: Axes, results: Sequence[Result], methods: Sequence[str]) -> None:
    for number, method in enumerate(methods):
        points = [(r.tokens, r.percent, r.ends or (r.percent, r.percent)) for r in results if r.cell.method == method]
        known = sorted((tokens, value, ends) for tokens, value, ends in points if None not in (tokens, value))
        if known:
            tokens, values, ends = zip(*known, strict=True)
            color = PALETTE[number % len(PALETTE)]
            axes.plot(tokens, values, label=method, color=color, marker=MARKERS[number % len(MARKERS)], linewidth=1.8)
            low, high = zip(*ends, strict=True)
            axes.fill_between(tokens, low, high, color=color, alpha=0.15, linewidth=0)
    full = next((r for r in results if r.cell.method == "none" and r.percent is not None), None)
    if full is not None:
        label = "all tokens" if full.tokens is None else f"all {full.tokens:.0f} tokens"
        axes.axhline(full.percent or 0.0, color="black", linestyle="--", linewidth=1.2, label=label)
    axes.set_xlabel("average visual tokens per layer")
    drawn = [r.tokens for r in results if r.cell.method != "none" and r.tokens is not None]
    axes.set_xlim(0, 1.06 * max(drawn, default=1.0))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
