"""`duet schedule` as a command, on a random model of the small world."""

from __future__ import annotations

import json

import pytest

from duet.cli.main import main
from playground.mini.schedule_samples import main as write_samples
from tests.small_world import random_model


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    write_samples(["--output", str(folder), "--count", "2"])
    return folder / "samples.jsonl"


def test_it_writes_a_budget_that_commands_take(samples, tmp_path, capsys):
    words = ["schedule", "--model", random_model(), "--average", "22.2", "--samples", str(samples), "--limit", "1"]
    assert main([*words, "--output", str(tmp_path), "--name", "found", "--device", "cpu"]) == 0
    out, progress = capsys.readouterr()
    assert "shapes considered; a sample cost" in out and f"--budget {tmp_path / 'found.yaml'}" in out
    assert "flat" in out and "duet_safe" in out and "chosen" in out and "measured whole: candidate" in progress
    assert {path.name for path in tmp_path.iterdir()} == {"found.yaml", "found.json", "found.png", "found.pdf"}
    facts = json.loads((tmp_path / "found.json").read_text())
    assert facts["prefills_per_sample"] < 30 and len(facts["trials"]) > 4
    assert main(["budget", "show", str(tmp_path / "found.yaml"), "--backbone", random_model()]) == 0
    assert "average" in capsys.readouterr().out
    picture = samples.parent / "images" / "short_000.png"
    words = ["ask", str(picture), "What?", "--model", random_model(), "--max-new-tokens", "1", "--json"]
    assert main([*words, "--budget", str(tmp_path / "found.yaml")]) == 0
    assert json.loads(capsys.readouterr().out)["answers"][0]["average"] == pytest.approx(22.2, abs=0.8)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--average", "22", "--samples", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--average", "0", "--samples", "x"], "not a number above 0"),
        (["--average", "22", "--samples", "SAMPLES", "--name", "a/b"], "use letters, digits"),
        (["--average", "22", "--samples", "SAMPLES", "--method", "duett"], "did you mean duet"),
        (["--average", "22", "--samples", "SAMPLES", "--measure", "time"], "invalid choice"),
    ],
)
def test_mistakes_are_told_before_the_model_is_loaded(samples, words, message, capsys, monkeypatch):
    monkeypatch.setattr("duet.cli.schedule.load_model", lambda *_: pytest.fail("loaded"))
    given = [str(samples) if word == "SAMPLES" else word for word in words]
    try:
        code = main(["schedule", *given])
    except SystemExit as stop:
        code = stop.code
    assert code == 2 and message in capsys.readouterr().err
