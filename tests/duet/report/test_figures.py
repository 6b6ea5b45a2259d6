"""What the figures draw: curves and points, from made-up sweeps."""

from __future__ import annotations

import pytest

from duet.budget import Budget
from duet.errors import UserError
from duet.report.figures import cluster_width, dominant, schedules
from duet.report.runs import find_runs
from tests.result_files import write_run

SCHEDULE = {"layers": (16, 24), "ratios": (0.5, 0.0)}


def curves(axes):
    """Label -> points, without the dashed line."""
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.get_lines()}
    return {label: points for label, points in lines.items() if label != "all tokens"}


def test_cluster_width_has_a_curve_per_budget(tmp_path):
    write_run(tmp_path, "textvqa", 58.2)
    for first, second in ((300, 7), (72, 30)):
        for width in (8, 2, 4):
            write_run(tmp_path, "textvqa", first / 10 + width, "duet_c", Budget(first, second, width, **SCHEDULE))
    (axes,) = cluster_width(find_runs(tmp_path), "textvqa").axes
    assert curves(axes) == {
        "192 tokens": [[2, 32], [4, 34], [8, 38]],
        "64 tokens": [[2, 9.2], [4, 11.2], [8, 15.2]],
    }
    assert axes.get_ylabel() == "VQA-T"


def test_dominant_has_a_panel_per_total(tmp_path):
    for total, counts in ((307, (300, 200)), (205, (150, 170)), (99, (50,))):
        for first in counts:
            budget = Budget(first, total - first, 4, **SCHEDULE)
            write_run(tmp_path, "textvqa", float(first), "duet_c", budget)
    panels = dominant(find_runs(tmp_path), "textvqa").axes
    assert [axes.get_title() for axes in panels] == ["k1 + k2 = 307", "k1 + k2 = 205"]
    assert curves(panels[0]) == {"w = 4": [[200, 200], [300, 300]]}


def test_schedules_cross_out_those_without_tokens_at_the_end(tmp_path):
    for value, ratios in ((57.5, (0.5, 0.25, 0.125)), (57.0, (0.5, 0.25, 0.0)), (40.0, (0.0, 0.0, 0.0))):
        write_run(tmp_path, "textvqa", value, "pyramiddrop_all", Budget(layers=(8, 16, 24), ratios=ratios))
    (axes,) = schedules(find_runs(tmp_path), "textvqa").axes
    kept, ended = axes.collections
    assert kept.get_offsets().tolist() == [[57.5, 2]]
    assert ended.get_offsets().tolist() == [[40.0, 0], [57.0, 1]]
    assert next(label.get_text() for label in axes.get_yticklabels()) == "0 / 0 / 0  (144)"


def test_mistakes_are_named(tmp_path):
    write_run(tmp_path, "textvqa", 58.2)
    with pytest.raises(UserError, match=r"no compressed results of textvqa .*results of: textvqa"):
        cluster_width(find_runs(tmp_path), "textvqa")
    write_run(tmp_path, "textvqa", 57.0, "duet_c", "llava15_192")
    with pytest.raises(UserError, match="no two results with the same dominant"):
        dominant(find_runs(tmp_path), "textvqa")
    write_run(tmp_path, "textvqa", 57.0, "duet", "llava15_192")
    with pytest.raises(UserError, match="several methods: duet_c, duet_c_all; choose by --method"):
        schedules(find_runs(tmp_path), "textvqa")
