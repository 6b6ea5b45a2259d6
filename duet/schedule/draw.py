"""The curves as a figure: loss against the layer, with all and with few tokens, and the shapes that were measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from duet.report.canvas import PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = (12.6, 4.0)
#: Marker and number of the colour.
LOOKS = {"withdrawn": ("o", 4), "frozen": ("s", 0), "entering": ("^", 2), "quartered": ("D", 1), "away": ("v", 3)}
MEANINGS = {
    "withdrawn": "withdrawn from the layer on",
    "frozen": "frozen from the layer on",
    "entering": "entering at the layer",
    "quartered": "a quarter left from the layer on",
    "away": "away at the layer, then back",
}
#: Loss above which nothing is drawn: worse than blind.
HIGHEST = 1.3


def draw_curves(facts: Mapping[str, Any], chosen: str, title: str) -> Figure:
    """The figure of what `duet.schedule.files.curve_facts` holds.

    Args:
        facts: curves and trials.
        chosen: name of the chosen trial.
        title: above all panels.
    """
    figure = Figure(figsize=SIZE, layout="constrained")
    first, second, third = figure.subplots(1, 3)
    _panel(first, facts, "all", "all tokens")
    _panel(second, facts, "few", "the tokens of stage 1")
    _shapes(third, facts["trials"], chosen, facts["depth"])
    first.set_ylabel("loss (0: all tokens everywhere, 1: blind)")
    handles: dict[str, Any] = {}
    for axes in (first, second):
        handles |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles), frameon=False)
    figure.suptitle(title, fontsize=11)
    return figure


def _panel(axes: Axes, facts: Mapping[str, Any], tokens: str, title: str) -> None:
    for what, (marker, color) in LOOKS.items():
        curve = facts["curves"].get(f"{what}, {tokens} tokens")
        if curve is None:
            continue
        for stratum, points in curve.items():
            mean = stratum == "mean"
            layers, losses = [int(layer) for layer in points], list(points.values())
            axes.plot(
                layers,
                losses,
                color=PALETTE[color],
                marker=marker if mean else None,
                markersize=4,
                linewidth=1.8 if mean else 0.7,
                alpha=1 if mean else 0.35,
                label=MEANINGS[what] if mean else None,
            )
    axes.set_ylim(-0.03, HIGHEST)
    axes.set_xlabel("layer")
    axes.set_title(f"{title}; thin: each stratum", fontsize=9)
    axes.grid(alpha=0.25)


def _shapes(axes: Axes, trials: Sequence[Mapping[str, Any]], chosen: str, depth: int) -> None:
    for number, trial in enumerate(trials):
        own, reference = trial["name"] == chosen, not trial["name"].startswith("candidate")
        axes.stairs(
            trial["tokens_per_layer"],
            range(depth + 1),
            baseline=None,
            color="black" if own else PALETTE[number % len(PALETTE)] if reference else "0.65",
            linewidth=2.2 if own else 1.4 if reference else 0.9,
            linestyle=":" if trial["refused"] else "-",
            label=f"{trial['name']}: {trial['loss']:.3f}",
        )
    axes.set_xlabel("layer")
    axes.set_ylabel("visual tokens")
    axes.set_title("shapes measured whole; black: chosen, dotted: refused", fontsize=9)
    axes.legend(fontsize=7, frameon=False)
    axes.grid(alpha=0.25)
