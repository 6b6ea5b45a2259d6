"""Measured next to printed values: the run of each cell, differences, averages, marks."""

from __future__ import annotations

import pytest

from duet.budget import Budget
from duet.errors import UserError
from duet.report.comparison import compare
from duet.report.paper import read_table
from duet.report.runs import find_runs
from duet.report.training import TrainingRun
from tests.result_files import write_run

FULL = {"pope": 85.9, "scienceqa": 69.5, "textvqa": 58.2, "mme": 1862.0, "gqa": 61.9}


def write_full(root, **options):
    for task, value in FULL.items():
        write_run(root, task, value, **options)


def cell(table, label, tokens, column):
    return next(
        entry
        for entry in table.records
        if (entry["method"], entry["tokens"], entry["column"]) == (label, tokens, column)
    )


def test_without_results_all_cells_are_marked_empty():
    table = compare(read_table(1), [])
    assert all(entry["measured"] is None for entry in table.records)
    assert all(" → –" in text for row in table.rows if len(row) > 1 for text in row[2:])
    assert table.notes[-1] == "nothing measured yet: duet table 1 --plan prints the commands"


def test_measured_next_to_printed(tmp_path):
    write_full(tmp_path)
    for task, value in FULL.items():
        write_run(tmp_path, task, value * 0.98, "duet_c", "llava15_192")
    table = compare(read_table(1), find_runs(tmp_path))
    found = cell(table, "DUET-VLM (C)", 192, "mme")
    assert found["published"] == 1817
    assert found["measured"] == pytest.approx(1862 * 0.98)
    assert found["difference"] == pytest.approx(1862 * 0.98 - 1817)
    assert found["tokens_measured"] == 191.75
    assert cell(table, "DUET-VLM (C)", 192, "average")["measured"] == pytest.approx(98.0)
    assert cell(table, "DUET-VLM (C)", 128, "average")["measured"] is None
    row = next(row for row in table.rows if row[0] == "DUET-VLM (C)")
    assert row[1] == "191.8"
    assert row[5] == "1817 → 1825 (+8)"
    assert row[-1] == "99.0 → 98.0 (-1.0)"


def test_average_of_some_benchmarks_is_marked_partial(tmp_path):
    write_full(tmp_path)
    write_run(tmp_path, "pope", 85.9, "duet_c", "llava15_64")
    table = compare(read_table(1), find_runs(tmp_path))
    found = cell(table, "DUET-VLM (C)", 64, "average")
    assert found["measured"] == pytest.approx(100)
    assert found["complete"] is False


def test_empty_printed_cell_stays_out_of_the_average(tmp_path):
    write_full(tmp_path)
    for task in FULL:
        budget = Budget.solve(192, "llava15", (2,))
        write_run(tmp_path, task, 0.0 if task == "pope" else FULL[task], "pyramiddrop", budget)
    found = cell(compare(read_table(1), find_runs(tmp_path)), "PyramidDrop", 192, "average")
    assert found["measured"] == pytest.approx(100)
    assert found["complete"] is True


def test_limited_and_unanswered_runs_are_marked(tmp_path):
    write_full(tmp_path)
    write_run(
        tmp_path, "pope", 80.0, "duet_c", "llava15_192", subset={"questions": 10, "of": 8910, "seed": 0}, asked=10
    )
    write_run(tmp_path, "gqa", 60.0, "duet_c", "llava15_192", scored=99)
    table = compare(read_table(1), find_runs(tmp_path))
    row = next(row for row in table.rows if row[0] == "DUET-VLM (C)")
    assert row[2] == "86.5 → 80.0* (-6.5)"
    assert row[6] == "60.3 → 60.0* (-0.3)"
    assert any(
        note.startswith("* partial: ") and "subset: 10 of 8910 questions, seed 0" in note for note in table.notes
    )


def test_a_small_model_stands_where_its_share_of_tokens_is(tmp_path):
    options = {"model": "checkpoints/llava-mini", "backbone": "mini"}
    write_run(tmp_path, "pope", 90.0, **options)
    write_run(tmp_path, "pope", 85.0, "duet_c", "mini_two_ninths", asked=240, **options)
    write_run(tmp_path, "pope", 80.0, "duet_c", "mini_ninth", asked=240, **options)
    table = compare(read_table(1), find_runs(tmp_path))
    assert cell(table, "DUET-VLM (C)", 128, "pope")["measured"] == 85.0
    assert cell(table, "DUET-VLM (C)", 64, "pope")["measured"] == 80.0
    assert cell(table, "DUET-VLM (C)", 192, "pope")["measured"] is None
    assert any("POPE 240 (official: 8910)" in note for note in table.notes)
    assert "here: checkpoints/llava-mini" in table.notes


def test_other_methods_and_switches_stay_out(tmp_path):
    write_full(tmp_path)
    write_run(tmp_path, "pope", 85.0, "duet", "llava15_192")
    write_run(tmp_path, "pope", 84.0, "duet_c", "llava15_192", switches={"score": "column_mean"})
    table = compare(read_table(1), find_runs(tmp_path))
    assert cell(table, "DUET-VLM (C)", 192, "pope")["measured"] is None
    write_run(tmp_path, "pope", 83.0, "visionzip", "llava15_192", stages=(1,))
    assert cell(compare(read_table(8), find_runs(tmp_path)), "DUET-VLM (C+all)", 192, "pope")["measured"] == 85.0


def test_of_several_budgets_the_papers_own_is_taken(tmp_path):
    write_full(tmp_path)
    write_run(tmp_path, "pope", 84.0, "duet_c", Budget(280, 27, 4, (16, 24), (0.5, 0.0)))
    write_run(tmp_path, "pope", 85.0, "duet_c", "llava15_192")
    table = compare(read_table(1), find_runs(tmp_path))
    assert cell(table, "DUET-VLM (C)", 192, "pope")["measured"] == 85.0


def test_two_models_for_one_cell_are_an_error_until_one_is_chosen(tmp_path):
    write_full(tmp_path)
    write_full(tmp_path, model="other/model")
    with pytest.raises(UserError, match="--model"):
        compare(read_table(1), find_runs(tmp_path))
    table = compare(read_table(1), find_runs(tmp_path, ["mod*"]))
    assert cell(table, "LLaVA-1.5-7B", 576, "pope")["model"] == "other/model"


def test_budgets_that_depend_on_the_picture_are_found_by_their_numbers(tmp_path):
    qwen = {"model": "Qwen", "backbone": "mini"}
    write_run(tmp_path, "pope", 87.8, **qwen)
    folder = write_run(
        tmp_path, "pope", 88.0, "duet_c", Budget(792, 139, 4, (4, 6), (0.5, 0.25)), backbone="qwen2_5_vl"
    )
    assert cell(compare(read_table(2), find_runs(tmp_path)), "DUET-VLM (C)", 640, "pope")["measured"] is None
    path = folder / "metrics.json"
    path.write_text(path.read_text().replace('"layers": [4, 6]', '"layers": [14, 21]'), encoding="utf-8")
    assert cell(compare(read_table(2), find_runs(tmp_path)), "DUET-VLM (C)", 640, "pope")["measured"] == 88.0


def test_speedup_is_time_of_all_questions_together(tmp_path):
    write_run(tmp_path, "pope", 85.9, asked=100, milliseconds=10.0)
    write_run(tmp_path, "gqa", 61.9, asked=300, milliseconds=20.0)
    write_run(tmp_path, "pope", 85.9, "duet_c", "llava15_192", asked=100, milliseconds=5.0)
    write_run(tmp_path, "gqa", 61.9, "duet_c", "llava15_192", asked=300, milliseconds=10.0)
    found = cell(compare(read_table(5), find_runs(tmp_path)), "DUET-VLM (C)", 192, "speedup")
    assert found["measured"] == pytest.approx(2.0)


def test_training_times(tmp_path):
    full = TrainingRun(tmp_path / "full", "none", 100.0, 2.0)
    ours = TrainingRun(tmp_path / "ours", "duet_c", 22.5, 1.5)
    table = compare(read_table(6), [], [full, ours])
    assert cell(table, "DUET-VLM (C)", 128, "time_saved")["measured"] == pytest.approx(25.0)
    assert cell(table, "DUET-VLM (C)", 64, "time_saved")["measured"] is None
    with pytest.raises(UserError, match="several training runs"):
        compare(read_table(6), [], [full, full])
