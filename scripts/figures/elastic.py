"""Draws accuracy against tokens for three models of the small world: never trained with compression, trained at one
budget, trained with a budget per step.

    duet sweep configs/eval/elastic.yaml && duet report outputs/elastic
    duet sweep configs/eval/elastic.yaml switches.positions=renumber output=outputs/elastic_renumber
    duet report outputs/elastic_renumber
    python scripts/figures/elastic.py outputs/elastic outputs/elastic_renumber -o docs/results/elastic.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

#: Model, results (0: positions kept, 1: renumbered, as it was trained), name, colour.
CURVES = (
    ("llava-mini", 0, "never trained with compression", "#8a94a6"),
    ("llava-mini-duet", 1, "trained at two ninths", "#d95f02"),
    ("llava-mini-elastic", 0, "elastic: a budget per step", "#0072b2"),
)
FULL = 100.0
#: Where "all tokens" stands on the axis.
END = 45.0


def points(rows: list[dict[str, Any]], model: str, early: bool) -> list[tuple[float, dict[str, Any]]]:
    """The runs of a model in one shape, from few to all tokens."""
    found = [
        row for row in rows if row["model"] == model and (row["tokens"] == FULL or ("early" in row["budget"]) == early)
    ]
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
        for early, style in ((False, "-"), (True, "--")):
            found = points(tables[table], model, early)
            tokens, values = [at for at, _ in found], [row["percent"] for _, row in found]
            label = name if not early else None
            axes.plot(tokens, values, style, color=colour, marker="o", label=label)
            bounds = [(row["percent_low"] or row["percent"], row["percent_high"] or row["percent"]) for _, row in found]
            axes.fill_between(tokens, *zip(*bounds, strict=True), color=colour, alpha=0.12, linewidth=0)
    axes.plot([], [], "-", color="black", label="DUET's shape: half after 4 of 8 layers, none after 6")
    axes.plot([], [], "--", color="black", label="early: 45 to 66 tokens for 2 to 4 layers, then none")
    axes.set_xticks([11.1, 22.2, 33.3, END], ["one ninth", "two ninths", "one third", "all tokens"])
    axes.set_ylabel("average score, % of llava-mini with all tokens")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")
    figure.savefig(given.output, dpi=150)


if __name__ == "__main__":
    main()
