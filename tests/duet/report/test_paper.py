"""The printed tables: complete, consistent where they claim to be, and in names that the commands understand."""

from __future__ import annotations

import pytest

from duet.budget import find_row
from duet.errors import UserError
from duet.method_table import METHODS
from duet.report.paper import AVERAGE, NUMBERS, average, read_table

BASELINES = {"fastv", "hired", "fitprune", "prumerge", "sparsevlm"}


def scored_rows():
    """Rows whose average can be computed from the row itself: (table, row, values, baseline)."""
    for number in NUMBERS:
        table = read_table(number)
        if not table.rows or not set(table.tasks) <= set(table.columns):
            continue
        baseline = table.published(table.baseline)
        for row in table.rows[1:]:
            yield table, row, table.published(row), baseline


def test_printed_averages_follow_the_rule_but_one():
    off, count = [], 0
    for table, row, values, baseline in scored_rows():
        tasks = [task for task in table.tasks if values[task] is not None]
        exact = average(values, baseline, tasks)
        count += 1
        # half a digit of rounding, and as much again for ties that the paper rounds its own way
        if abs(exact - values[AVERAGE]) > 0.0501:
            off.append((table.number, row.label, row.tokens))
    assert count == 93
    assert off == [(4, "DUET-VLM (C)", 136)]


def test_rows_that_stand_in_two_tables_agree():
    seen: dict[tuple, float] = {}
    for table, row, values, _ in scored_rows():
        if table.trained:
            continue
        for task in table.tasks:
            key = (table.backbone, row.method, row.tokens, task)
            assert seen.setdefault(key, values[task]) == values[task], key


@pytest.mark.parametrize("number", NUMBERS)
def test_names_are_known(number):
    table = read_table(number)
    assert table.number == number
    for row in table.rows:
        assert row.method in METHODS or row.method in BASELINES
        if row.method != "none" and not row.budget.startswith("{"):
            assert find_row(table.budget(row)).backbone == table.backbone
    for name in table.budgets:
        assert find_row(name).source.startswith(f"paper Table {number}")


@pytest.mark.parametrize("number", NUMBERS)
def test_every_note_is_on_something(number):
    table = read_table(number)
    for note in table.notes:
        on_all = note.label is None and note.tokens is None and note.column is None
        cells = [(row, column) for row in table.rows for column in (None, *table.columns)]
        assert on_all or any(note.covers(row, column) for row, column in cells), note.text


def test_there_is_no_table_16():
    with pytest.raises(UserError, match="choose 1 to 15"):
        read_table(16)


def test_averages_of_one_run_are_over_the_same_benchmarks_in_tables_1_3_5_and_6():
    for shown, averages in ((1, 5), (3, 6)):
        rows = {(row.method, row.tokens): row for row in read_table(shown).rows}
        table = read_table(averages)
        for row in table.rows:
            twin = rows[row.method, row.tokens]
            assert table.averaged(row) == read_table(shown).averaged(twin), (averages, row.label)


def test_baselines_are_named_after_their_model():
    families = {
        "llava15": "LLaVA-1.5",
        "llavanext": "LLaVA-NeXT",
        "qwen2_5_vl": "Qwen2.5-VL",
        "videollava": "Video-LLaVA",
    }
    for number in range(1, 12):
        table = read_table(number)
        assert table.baseline.label.startswith(families[table.backbone])
