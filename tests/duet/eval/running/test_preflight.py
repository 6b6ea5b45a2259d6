"""Problems that would stop a run are reported before a model is loaded, and by a dry run, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from duet.cli.main import main
from tests.small_world import random_model, write_questions


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    random_model()  # made before anything is captured

    def load(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was loaded before the mistake was found")

    monkeypatch.setattr("duet.eval.asking.answerer.Answerer.load", load)


def grid_file(root: Path, **changes: Any) -> Path:
    content: dict[str, Any] = {
        "models": {"small": random_model()},
        "methods": ["visionzip", "duet"],
        "budgets": {"few": {"average": 20}},
        "tasks": ["pope"],
        "data": str(write_questions(root / "data", "pope", count=6)),
        "output": str(root / "out"),
        "loading": {"device": "cpu"},
    }
    path = root / "grid.yaml"
    path.write_text(yaml.safe_dump({**content, **changes}))
    return path


BROKEN = {
    "an average out of reach": ({"budgets": {"few": {"average": 900}}}, "few: an average of 900"),
    "no number": ({"budgets": {"few": {"average": "many"}}}, "average is 'many'"),
    "a truth": ({"budgets": {"few": True}}, "budget True: give a name, an average or numbers"),
    "an unknown name": ({"budgets": {"few": "llava16_1"}}, "unknown budget"),
    "counts that are too many": ({"budgets": {"few": {"dominant": 90, "contextual": 50}}}, ""),
    "no counts for a stage": ({"budgets": {"few": {"dominant": 9, "contextual": 0}}}, "duet has a stage 2, but the"),
    "a drop that nothing can rank": (
        {"methods": ["fastv"], "budgets": {"few": {"layers": [3], "ratios": [0.5], "away": [2]}}},
        "fastv ranks visual tokens in the layer before a drop",
    ),
    "an unknown task": ({"tasks": ["popes"]}, "no benchmark 'popes'"),
    "an unknown method": ({"methods": ["duett"]}, "unknown method"),
    "no checkpoint": ({"models": {"small": "nowhere/is/a model"}}, "model small: no checkpoint at nowhere/is/a model"),
    "a limit below 1": ({"limit": -1}, "limit is -1; give a whole number of at least 1"),
    "a limit that is not a number": ({"limit": "few"}, "limit"),
    "an empty switch": ({"switches": {"positions": ""}}, "positions is ''"),
    "an unknown switch": ({"switches": {"position": "keep"}}, "unknown switch 'position' of method visionzip"),
    "an unknown choice": ({"switches": {"positions": "kept"}}, "positions is 'kept'; choose renumber, keep"),
    "a switch that does nothing": (
        {"methods": ["duet", "pyramiddrop"], "switches": {"attention": "proportional"}},
        "method pyramiddrop has no stage 1",
    ),
    "output in the way": ({"output": __file__}, "output: cannot write to the output folder"),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("dry", [True, False])
def test_a_broken_grid_says_what_is_wrong(
    name: str, dry: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, message = BROKEN[name]
    assert main(["sweep", str(grid_file(tmp_path, **changes)), *(["--dry-run"] if dry else [])]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--attention", "proportional"], "method none has no stage 1"),
        (["--score", "cls_row"], "method none has no stage 1"),
        (["--method", "pyramiddrop", "--budget", "20", "--attention", "proportional"], "pyramiddrop has no stage 1"),
        (["--method", "duet", "--budget", "20", "--option", "alpha=2"], "unknown switch 'alpha'"),
    ],
)
def test_a_switch_without_use_is_refused_before_a_model_is_loaded(
    given: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_questions(tmp_path / "data", "pope", count=2)
    places = ["--data", str(root), "--output", str(tmp_path / "out"), "--tasks", "pope"]
    assert main(["eval", "--model", random_model(), *places, *given]) == 2
    assert message in capsys.readouterr().err


def test_a_frame_rate_without_videos_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(write_questions(tmp_path / "data", "pope", count=6))
    words = ["eval", "--model", random_model(), "--tasks", "pope", "--data", data, "--output", str(tmp_path / "out")]
    assert main([*words, "--fps", "2"]) == 2
    assert "--fps would have no effect" in capsys.readouterr().err


def test_damaged_questions_are_found_and_missing_ones_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = grid_file(tmp_path)
    (tmp_path / "data" / "pope" / "llava_pope_test.jsonl").write_text('{"question_id": 1, "image": null}\n')
    assert main(["sweep", str(path), "--dry-run"]) == 2
    assert "llava_pope_test.jsonl:1: " in capsys.readouterr().err
    elsewhere = grid_file(tmp_path, data=str(tmp_path / "elsewhere"))
    assert main(["sweep", str(elsewhere), "--dry-run"]) == 0
    assert "pope is missing" in capsys.readouterr().err
    assert main(["sweep", str(elsewhere)]) == 2
    assert "pope is missing" in capsys.readouterr().err


def words(command: str, root: Path) -> list[str]:
    data = str(write_questions(root / "data", "pope", count=6))
    return {
        "eval": ["eval", "--model", random_model(), "--tasks", "pope", "--data", data, "--output", str(root / "out")],
        "sweep": ["sweep", str(grid_file(root))],
    }[command]


@pytest.mark.parametrize("command", ["eval", "sweep"])
@pytest.mark.parametrize("obstacle", ["file", "task", "result", "parent"])
def test_a_place_that_cannot_be_written_is_found_first(
    command: str, obstacle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = words(command, tmp_path)
    task = tmp_path / "out" / ("pope" if command == "eval" else "small/none@full/pope")
    if obstacle == "file":
        (tmp_path / "out").write_text("in the way")
    elif obstacle == "task":
        task.parent.mkdir(parents=True)
        task.write_text("in the way")
    elif obstacle == "result":
        (task / "metrics.json").mkdir(parents=True)
    else:
        line = [word.replace(str(tmp_path / "out"), str(tmp_path / "taken" / "out")) for word in line]
        (tmp_path / "taken").write_text("in the way")
        if command == "sweep":
            grid_file(tmp_path, output=str(tmp_path / "taken" / "out"))
    assert main(line) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and str(tmp_path) in error


@pytest.mark.parametrize(
    "line",
    [
        ["table", "1", "--out", "{taken}/table.md"],
        ["table", "1", "--out", "{folder}"],
        ["plot", "accuracy", "--results", "{folder}", "-o", "{taken}/figure.png"],
        ["plot", "k1", "--results", "{folder}/nowhere"],
        ["report", "{folder}/nowhere"],
        ["score", "pope", "--data", "{folder}", "--predictions", "{taken}", "--json", "{taken}/score.json"],
        ["judge", "msvd", "--data", "{folder}", "--predictions", "{taken}", "--judge-model", "m", "--json", "{folder}"],
    ],
    ids=lambda line: " ".join(line[:2]),
)
def test_files_that_cannot_be_written_are_named(
    line: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("in the way")
    places = {"taken": tmp_path / "taken", "folder": tmp_path}
    assert main([word.format(**places) for word in line]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and str(tmp_path) in error
    assert (tmp_path / "taken").read_text() == "in the way" and not (tmp_path / "nowhere").exists()
