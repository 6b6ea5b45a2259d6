"""`duet table`, `duet plot` and `duet sweep --dry-run` as they are called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from duet.budget import Budget
from duet.cli.main import main
from tests.result_files import write_run

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    write_run(tmp_path, "pope", 85.9, model="full-model")
    write_run(tmp_path, "pope", 85.0, "duet_c", "llava15_192", model="trained-model")
    return tmp_path


def test_results_of_two_models(results, capsys):
    words = ["table", "3", "--results", str(results), "--model", "trained-model", "--format", "json"]
    assert main(words) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert all(row["measured"] is None for row in rows if row["column"] == "average")
    assert main([*words, "--baseline", "full-*"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    found = [row for row in rows if row["column"] == "average" and row["measured"] is not None]
    assert [(row["name"], row["tokens"]) for row in found] == [("none", 576), ("duet_c", 192)]


def test_written_to_a_file(results, tmp_path, capsys):
    out = tmp_path / "tables" / "t1.tex"
    assert main(["table", "1", "--results", str(results), "--format", "latex", "--out", str(out)]) == 0
    assert out.read_text(encoding="utf-8").startswith(r"\begin{table}")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("number", range(12, 16))
def test_budget_tables_need_no_results(number, capsys):
    assert main(["table", str(number), "--format", "json"]) == 0
    for row in json.loads(capsys.readouterr().out)["rows"]:
        assert row["dominant"] > row["contextual"] > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["table", "16"], "choose 1 to 15"),
        (["table", "one"], "choose 1 to 15, mini, methods or paired"),
        (["table", "1", "--format", "html"], "choose markdown"),
        (["table", "1", "--results", "nowhere"], "no such folder of results: nowhere"),
        (["table", "mini", "--results", "nowhere"], "give the output folder of `duet sweep`"),
        (["table", "3", "--plan", "--model", "playground/mini/checkpoints/llava-mini"], "--recipe"),
        (["plot", "k1", "--results", "nowhere"], "no such folder"),
        (["plot", "k1", "--results", ".", "-o", "k1.txt"], ".png, .pdf, .svg"),
        (["sweep", "nowhere.yaml"], "no such configuration file: nowhere.yaml"),
    ],
)
def test_mistakes_are_one_line(words, message, capsys):
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_plot_is_a_picture(tmp_path, capsys):
    for width in (2, 4):
        write_run(tmp_path, "textvqa", 57.0, "duet_c", Budget(72, 30, width, (16, 24), (0.5, 0.0)))
    assert main(["plot", "cluster-width", "--results", str(tmp_path)]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert path == tmp_path / "cluster-width.png"
    assert Image.open(path).size[0] > 600


def test_sweep_lists_what_is_to_be_done(tmp_path, capsys):
    grid = REPOSITORY / "configs" / "eval" / "figure1.yaml"
    done = tmp_path / "llava15" / "none@full" / "pope"
    done.mkdir(parents=True)
    (done / "metrics.json").write_text("{}", encoding="utf-8")
    assert main(["sweep", str(grid), f"output={tmp_path}", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "1 of 5 done  llava15 none"
    assert len(lines) == 1 + 3 * 3
