"""Tables as Markdown, LaTeX, CSV and JSON: one renderer for all of them.

A `Table` has text cells for people (Markdown, LaTeX) and records for programs (CSV, JSON): the same content as plain
numbers, None for empty.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from duet.errors import UserError

_LATEX = {
    "\\": r"\textbackslash{}",
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "–": "--",
    "→": r"$\rightarrow$",
}


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: heading.
        header: one text per column.
        rows: cells; a row with a single cell is a heading inside the table.
        records: the content of the rows as flat mappings, all with the same keys.
        notes: lines below the table.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    records: Sequence[dict[str, Any]]
    notes: Sequence[str] = ()


def markdown(table: Table) -> str:
    """GitHub's table, with padded columns; numbers on the right."""
    rows = [_padded(row, len(table.header)) for row in table.rows]
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (table.header, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = ["| " + " | ".join(_aligned(row, widths)) + " |" for row in (cells[0], rule, *cells[1:])]
    notes = [f"- {note}" for note in table.notes]
    return "\n".join([f"**{table.title}**", "", *lines, *([""] if notes else []), *notes]) + "\n"


def latex(table: Table) -> str:
    """A `table` environment with booktabs rules."""
    width = len(table.header)
    lines = [r"\begin{table}", r"\centering", f"\\caption{{{_escaped(table.title)}}}"]
    lines += [f"\\begin{{tabular}}{{l{'r' * (width - 1)}}}", r"\toprule", _line(table.header), r"\midrule"]
    for number, row in enumerate(table.rows):
        if len(row) == 1:
            lines += [*([r"\midrule"] if number else []), f"\\multicolumn{{{width}}}{{c}}{{{_escaped(row[0])}}} \\\\"]
        else:
            lines.append(_line(row))
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [f"\\par\\footnotesize {_escaped(note)}" for note in table.notes]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def comma_separated(table: Table) -> str:
    """The records, one line each under a line of keys."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(table.records[0]) if table.records else list(table.header), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table.records)
    return out.getvalue()


def as_json(table: Table) -> str:
    """Title, records and notes."""
    content = {"title": table.title, "rows": list(table.records), "notes": list(table.notes)}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


FORMATS: dict[str, Callable[[Table], str]] = {
    "markdown": markdown,
    "latex": latex,
    "csv": comma_separated,
    "json": as_json,
}


def render(table: Table, form: str) -> str:
    """The table as text in one of `FORMATS`.

    Raises:
        UserError: unknown format.
    """
    if form not in FORMATS:
        raise UserError(f"unknown format {form!r}; choose {', '.join(FORMATS)}")
    return FORMATS[form](table)


def _padded(row: Sequence[str], width: int) -> list[str]:
    cells = [f"*{row[0]}*"] if len(row) == 1 else list(row)
    return cells + [""] * (width - len(cells))


def _aligned(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]


def _line(row: Sequence[str]) -> str:
    return " & ".join(map(_escaped, row)) + r" \\"


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(mark, mark) for mark in text)
