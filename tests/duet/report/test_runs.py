"""Result folders are found and read; other folders are named in an error."""

from __future__ import annotations

import json

import pytest

from duet.budget import Budget
from duet.errors import UserError
from duet.report.runs import find_runs
from duet.report.training import find_trainings
from tests.result_files import write_run


def test_a_run_comes_back_as_it_was_written(tmp_path):
    folder = write_run(tmp_path, "pope", 85.0, "duet", "llava15_128", milliseconds=12.5)
    (run,) = find_runs(tmp_path)
    assert run.folder == folder
    assert (run.task, run.method, run.value, run.metric) == ("pope", "duet_c_all", 85.0, "headline")
    assert run.budget == Budget(170, 35, 4, (16, 24), (0.5, 0.0))
    assert (run.average, run.milliseconds, run.complete) == (128.0, 12.5, True)


def test_video_needs_the_judge_of_all_answers(tmp_path):
    folder = write_run(tmp_path, "msvd", 33.0)
    assert find_runs(tmp_path)[0].value is None
    judged = {"counts": {"judged": 99, "rows": 100}, "metrics": {"accuracy": 70.0}, "headline": {"judge": "gpt"}}
    (folder / "judge.json").write_text(json.dumps(judged), encoding="utf-8")
    assert find_runs(tmp_path)[0].value is None
    judged["counts"]["judged"] = 100
    (folder / "judge.json").write_text(json.dumps(judged), encoding="utf-8")
    (run,) = find_runs(tmp_path)
    assert (run.value, run.metric) == (70.0, "accuracy by gpt")


def test_mistakes_are_named(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        find_runs(tmp_path / "nowhere")
    write_run(tmp_path, "pope", 85.0)
    with pytest.raises(UserError, match=r"no results of mini; it has those of llava-hf/llava-1\.5-7b-hf"):
        find_runs(tmp_path, ["mini"])
    (tmp_path / "metrics.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="not a result of `duet eval`"):
        find_runs(tmp_path)


def test_training_runs(tmp_path):
    (tmp_path / "recipe.yaml").write_text("compression: {method: duet}\n", encoding="utf-8")
    log = [{"step": 1, "loss": 2.0}]
    log += [{"step": step, "step_seconds": step / 10, "visual_tokens": 22.5} for step in (10, 20, 90)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log), encoding="utf-8")
    (run,) = find_trainings(tmp_path)
    assert (run.method, run.visual_tokens, run.step_seconds) == ("duet_c_all", 22.5, 2.0)
