"""Question files of the user's own: rows, metrics, results of a run, and the mistakes one makes in them."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from duet.cli.main import main
from duet.eval import benchmarks
from duet.eval.benchmarks.own import OwnQuestions
from duet.eval.judge.cases import read_cases
from duet.eval.types import InputError, Prediction

ROWS = [
    {"image": "a.png", "question": "What number?", "answer": "42", "group": "number"},
    {"images": ["a.png", "b.png"], "question": "Is <image> or <image> darker?", "answer": ["Left", "the left one"]},
    {"question": "Who is it?", "answer": "a man", "id": "who", "group": "person"},
]


@pytest.fixture(autouse=True)
def forget(monkeypatch):
    monkeypatch.setattr(benchmarks, "_OWN", {})


@pytest.fixture
def write(tmp_path):
    def written(rows, name="mine.jsonl"):
        for picture in ("a.png", "b.png"):
            Image.new("RGB", (100, 100)).save(tmp_path / picture)
        path = tmp_path / name
        lines = "\n".join(json.dumps(row) for row in rows)
        path.write_text(json.dumps(rows) if path.suffix == ".json" else lines)
        return path

    return written


@pytest.mark.parametrize("name", ["mine.jsonl", "mine.json"])
def test_rows(write, tmp_path, name):
    own = benchmarks.get(str(write(ROWS, name)))
    assert isinstance(own, OwnQuestions) and own.name == "mine"
    assert benchmarks.get("mine").path == own.path
    first, second, third = own.load(tmp_path / "elsewhere")
    assert first.images == (str(tmp_path / "a.png"),) and first.id == "0" and first.group == "number"
    assert len(second.images) == 2 and second.meta["answers"] == ["Left", "the left one"]
    assert third.images == () and third.id == "who"


def test_metrics(write):
    path = write(ROWS)
    said = {"0": "The 42!", "1": "left one", "who": "It is a man."}
    score = benchmarks.get(str(path)).score(path, [Prediction(text, 1, name) for name, text in said.items()])
    assert score.summary.metrics == pytest.approx(
        {"exact": 200 / 3, "contains": 100, "exact/number": 100, "exact/": 100, "exact/person": 0}
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "Why?"}, "answer"),
        ({"question": "Why?", "answer": "the"}, "has no word to compare"),
        ({"question": "Why?", "answer": []}, "answer"),
        ({"question": 3, "answer": "x"}, "question"),
        ({"question": "Why?", "answer": "x", "picture": "a"}, "unknown picture; a row has answer, group, id"),
        (
            {"question": "Why?", "answer": "x", "image": "a.png", "video": "a.mp4"},
            "give one of image, images and video",
        ),
        ({"question": "Why?", "answer": "x", "id": "0"}, "is taken by an earlier row"),
    ],
)
def test_a_mistake_is_named_with_its_line(write, row, message):
    path = write([{"question": "First?", "answer": "x"}, row])
    with pytest.raises(InputError, match=message) as found:
        benchmarks.get(str(path)).load(path)
    assert "mine.jsonl:2" in str(found.value)


def test_names_that_clash(write, tmp_path):
    with pytest.raises(InputError, match="pope is the name of a benchmark"):
        benchmarks.get(str(tmp_path / "pope.jsonl"))
    benchmarks.get(str(write(ROWS)))
    with pytest.raises(InputError, match="would share the results of mine"):
        benchmarks.get(str(write(ROWS, "mine.json")))


def test_a_run_and_its_judge(write, tmp_path, capsys):
    path = write(ROWS)
    out = tmp_path / "out"
    words = ["eval", "--tasks", str(path), "--output", str(out), "--method", "duet", "--budget", "22.2"]
    assert main([*words, "--max-new-tokens", "3", "--template", "USER: {question}\\nASSISTANT:"]) == 0
    metrics = json.loads((out / "mine" / "metrics.json").read_text())
    assert metrics["counts"]["scored"] == 3
    settings = json.loads((out / "mine" / "run.json").read_text())
    assert "USER: {question}\nASSISTANT:" in json.dumps(settings).encode().decode("unicode_escape")
    cases = read_cases(str(path), tmp_path, out / "mine" / "predictions.jsonl", "judge")
    assert [case.sample.id for case in cases.rows] == ["0", "1", "who"]
    said = ["--predictions", str(out / "mine" / "predictions.jsonl")]
    assert main(["score", str(path), *said, "--json", str(tmp_path / "score.json")]) == 0
    assert json.loads((tmp_path / "score.json").read_text())["metrics"] == metrics["metrics"]
    assert main(["judge", str(path), *said, "--judge-model", "m", "--dry-run"]) == 0
    capsys.readouterr()
    for words, message in (
        (["score", str(path), "--data", str(tmp_path)], "--data does nothing: "),
        (["judge", "msvd", "--judge-model", "m"], "--data is missing: the folder of all benchmarks, or that of msvd"),
    ):
        assert main([*words, *said]) == 2
        assert message in capsys.readouterr().err
    assert main(["data", "check", str(path)]) == 2
    assert "no official release" in capsys.readouterr().err
