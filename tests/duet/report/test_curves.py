"""Curves of training runs, from their logs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from duet.cli.main import main
from duet.errors import UserError
from duet.report.curves import draw_training, read_curves, smoothed


def run(root: Path, name: str, losses: list[float]) -> Path:
    folder = root / name
    folder.mkdir()
    lines = [{"step": step, "loss": loss, "learning_rate": 1 / (step + 1)} for step, loss in enumerate(losses)]
    lines += [{"step": 2, "accuracy/mean": 0.5, "accuracy/count": 0.25, "held_out/loss": 1.5}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_a_panel_each_for_losses_rates_and_answers(tmp_path: Path) -> None:
    runs = [read_curves(run(tmp_path, name, [3.0, 2.0, 1.0])) for name in ("all", "duet")]
    assert runs[0].points["loss"] == [(0, 3.0), (1, 2.0), (2, 1.0)]
    panels = draw_training(runs).axes
    assert [axes.get_ylabel() for axes in panels] == ["loss", "learning rate", "held-out answers, % right"]
    labels = [text.get_text() for text in panels[0].get_legend().get_texts()]
    assert labels == ["all: training", "all: loss", "duet: training", "duet: loss"]
    assert [line.get_ydata()[0] for line in panels[2].lines] == [50.0, 50.0]


def test_a_smoothed_constant_is_the_constant() -> None:
    assert [value for _, value in smoothed([(step, 2.0) for step in range(5)])] == pytest.approx([2.0] * 5)


def test_the_command_writes_a_picture(tmp_path: Path) -> None:
    folder = run(tmp_path, "all", [3.0, 2.0])
    out = tmp_path / "curves.png"
    assert main(["plot", "training", str(folder), "-o", str(out)]) == 0
    assert out.stat().st_size > 5000


def test_a_run_without_a_loss_is_refused(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(UserError, match="no loss"):
        read_curves(tmp_path)
