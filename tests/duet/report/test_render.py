"""One table in four formats."""

from __future__ import annotations

import csv
import io
import json

import pytest

from duet.errors import UserError
from duet.report.render import Table, render

TABLE = Table(
    title="A & B",
    header=("name", "100 %"),
    rows=(("all",), ("x_y", "1 → –"), ("z|", "2")),
    records=({"name": "x_y", "value": 1}, {"name": "z|", "value": None}),
    notes=("50 % of #1",),
)


def test_markdown_is_aligned_and_escapes_bars():
    lines = render(TABLE, "markdown").splitlines()
    assert lines[0] == "**A & B**"
    assert len({len(line) for line in lines[2:7]}) == 1
    assert lines[3].endswith("-: |")
    assert lines[4].startswith("| *all*")
    assert "z\\|" in lines[6]
    assert lines[-1] == "- 50 % of #1"


def test_latex_escapes_what_is_special():
    text = render(TABLE, "latex")
    assert r"\caption{A \& B}" in text
    assert r"x\_y & 1 $\rightarrow$ -- \\" in text
    assert r"\multicolumn{2}{c}{all} \\" in text
    assert r"50 \% of \#1" in text


def test_records_come_back_from_csv_and_json():
    rows = list(csv.DictReader(io.StringIO(render(TABLE, "csv"))))
    assert rows == [{"name": "x_y", "value": "1"}, {"name": "z|", "value": ""}]
    found = json.loads(render(TABLE, "json"))
    assert found["rows"] == list(TABLE.records)
    assert found["notes"] == ["50 % of #1"]


def test_unknown_format():
    with pytest.raises(UserError, match="markdown, latex, csv, json"):
        render(TABLE, "html")
