"""Runs that read a picture once write the files that they write without, and read it once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from duet.eval.running.grid import Grid
from duet.eval.running.sweep import Evaluation, evaluate, run_grid
from tests.small_world import random_model, write_questions

BUDGET = {"dominant": 20, "contextual": 6, "layers": [1, 2], "ratios": [0.5, 0.0]}
OTHER = {"dominant": 20, "contextual": 6, "layers": [2, 3], "ratios": [0.5, 0.0]}
TASKS = ("pope", "gqa")


BUDGETS = {"duet": BUDGET, "pyramiddrop": {"layers": [1, 2], "ratios": [0.5, 0.0]}, "mmtok": {"dominant": 20}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """POPE asks several questions about a picture, GQA here one."""
    return str(write_questions(tmp_path_factory.mktemp("data"), *TASKS))


def predictions(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("predictions.jsonl")}


@pytest.mark.parametrize("method", BUDGETS)
def test_one_evaluation(method: str, data: str, tmp_path: Path) -> None:
    found: dict[bool, Any] = {}
    for share in (True, False):
        wanted = Evaluation(
            random_model(), TASKS, data, str(tmp_path / str(share)), method, BUDGETS[method],
            batch_size=5, max_new_tokens=3, loading={"device": "cpu"}, share=share,
        )  # fmt: skip
        found[share] = evaluate(wanted)
    assert predictions(tmp_path / "True") == predictions(tmp_path / "False")
    assert [one["timing"]["shared_pictures"] for one in found[True]] == [True, False]
    assert not any(one["timing"]["shared_pictures"] for one in found[False])


def test_a_grid_runs_the_tower_once_for_all_methods(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import duet.backbones.clip as clip

    runs: dict[bool, int] = {}
    stock = clip.encode
    for share in (True, False):
        count = []
        monkeypatch.setattr(clip, "encode", lambda *given, c=count: c.append(len(given[1])) or stock(*given))
        grid = Grid(
            {"mini": random_model()}, ("duet", "visionzip_c"), {"one": BUDGET, "two": OTHER}, ("pope",), data,
            str(tmp_path / str(share)), batch_size=5, max_new_tokens=2, loading={"device": "cpu"}, share=share,
        )  # fmt: skip
        run_grid(grid)
        runs[share] = sum(count)
    one, other = tmp_path / "True", tmp_path / "False"
    assert predictions(one) == predictions(other) and len(predictions(one)) == 5
    assert 0 < runs[True] < runs[False] / 2
