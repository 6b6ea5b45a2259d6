"""Draws accuracy against tokens for three models of the small world: never trained with compression, trained at one
budget, trained with a budget per step.

    duet sweep configs/eval/elastic.yaml && duet report outputs/elastic
    mini=playground/mini/checkpoints
    duet sweep configs/eval/elastic_duet.yaml switches.positions=renumber output=outputs/elastic_renumber \\
        "models={llava-mini: $mini/llava-mini, llava-mini-duet: $mini/llava-mini-duet}"
    duet report outputs/elastic_renumber
    python scripts/figures/elastic.py outputs/elastic outputs/elastic_renumber -o docs/results/elastic.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

#: The one of two shapes at one ninth that is drawn for duet_cover.
LONG, OTHERS = "one ninth, 36 16 10 9 9 9", "one ninth"
#: Model, results (0: duet_cover, positions kept; 1: DUET, positions renumbered, as it was trained), name, colour.
CURVES = (
    ("llava-mini", 0, "never trained with compression: duet_cover, its shapes", "#8a94a6"),
    ("llava-mini-duet", 1, "trained with DUET at two ninths: DUET, as trained", "#d95f02"),
    ("llava-mini-elastic", 0, "elastic, a budget per step: duet_cover, its shapes", "#0072b2"),
)
FULL = 100.0
#: Where "all tokens" stands on the axis.
END = 45.0


def points(rows: list[dict[str, Any]], model: str) -> list[tuple[float, dict[str, Any]]]:
    """The runs of a model, from few to all tokens; of several shapes at one ninth the long one."""
    found = [row for row in rows if row["model"] == model and "early" not in row["budget"]]
    if any(row["budget"] == LONG for row in found):
        found = [row for row in found if row["budget"] == LONG or not row["budget"].startswith(OTHERS)]
    return sorted(((min(row["tokens"], END), row) for row in found), key=lambda pair: pair[0])


def main() -> None:
    """Command line, see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs=2, help="positions kept, and renumbered")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/results/elastic.png"))
    given = parser.parse_args()
    tables = [json.loads((folder / "table.json").read_text(encoding="utf-8"))["rows"] for folder in given.results]
    figure = Figure(figsize=(7.6, 4.4), layout="constrained")
    axes = figure.add_subplot()
    for model, table, name, colour in CURVES:
        found = points(tables[table], model)
        tokens, values = [at for at, _ in found], [row["percent"] for _, row in found]
        axes.plot(tokens, values, color=colour, marker="o", label=name)
        bounds = [(row["percent_low"] or row["percent"], row["percent_high"] or row["percent"]) for _, row in found]
        axes.fill_between(tokens, *zip(*bounds, strict=True), color=colour, alpha=0.12, linewidth=0)
    axes.set_xticks([11.1, 22.2, 33.3, END], ["one ninth", "two ninths", "one third", "all tokens"])
    axes.set_ylabel("average score, % of llava-mini with all tokens")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")
    figure.savefig(given.output, dpi=150)


if __name__ == "__main__":
    main()
