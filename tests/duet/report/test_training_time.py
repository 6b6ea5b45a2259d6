"""Figure 1 (b): time per training step saved, from the folders of training runs."""

from __future__ import annotations

import json

import pytest

from duet.errors import UserError
from duet.report.figures import training_time
from duet.report.training import find_trainings


def write_run(folder, method, seconds, tokens):
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(f"compression: {{method: {method}}}\n")
    lines = [{"step": 25, "step_seconds": seconds, "visual_tokens": tokens}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_bars_show_the_share_saved_most_tokens_first(tmp_path):
    write_run(tmp_path / "full", "none", 2.0, 100)
    write_run(tmp_path / "small", "duet", 0.5, 11.2)
    write_run(tmp_path / "large", "duet", 1.5, 33)
    (axes,) = training_time(find_trainings(tmp_path)).axes
    assert [round(bar.get_height()) for bar in axes.patches] == [25, 75]
    assert [label.get_text().splitlines()[1] for label in axes.get_xticklabels()] == ["33 tokens", "11 tokens"]


def test_needs_a_run_without_compression(tmp_path):
    write_run(tmp_path / "small", "duet", 0.5, 11.2)
    with pytest.raises(UserError, match="with and without compression"):
        training_time(find_trainings(tmp_path))
