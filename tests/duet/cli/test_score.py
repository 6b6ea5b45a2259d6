"""`duet score` as called by a user: exit codes, printed text, JSON and per-row files."""

import argparse
import json

import pytest

from duet.cli import score as command
from duet.eval.types import InputError
from tests.eval_files import answer, document, lines


@pytest.fixture
def data(tmp_path):
    types = {"Scene Understanding": 1, "Text Understanding": 9}
    rows = [
        {"question_id": str(n), "question_type_id": kind, "data_type": "image", "answer": "A"}
        for n, kind in ((1, 1), (2, 1), (3, 9))
    ]
    document(tmp_path / "seed_bench" / "SEED-Bench.json", {"questions": rows, "question_type": types})
    return tmp_path


def run(data, rows, *options) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    file = lines(data / "merge.jsonl", rows)
    return command.run(parser.parse_args(["seed", "--data", str(data), "--predictions", str(file), *map(str, options)]))


def test_a_complete_score(data, capsys):
    out, per_row = data / "new" / "out.json", data / "rows.jsonl"
    rows = [answer(1, "A"), answer(2, "B"), answer(3, "A")]
    assert run(data, rows, "--json", out, "--per-row", per_row) == 0
    saved = json.loads(out.read_text())
    assert (saved["task"], saved["version"], saved["complete"]) == ("seed", 1, True)
    assert saved["headline"] == {"name": "image", "value": 200 / 3}
    assert saved["metrics"] == {"image": 200 / 3, "Scene Understanding": 50, "Text Understanding": 100}
    assert saved["counts"] == {"rows": 3, "scored": 3, "missing": 0, "duplicate": 0, "unknown": 0}
    assert saved["tallies"]["Scene Understanding"] == {"rows": 2, "right": 1}
    decisions = [json.loads(line) for line in per_row.read_text().splitlines()]
    assert [(row["question_id"], row["parsed"], row["correct"]) for row in decisions] == [
        ("1", "A", True),
        ("2", "B", False),
        ("3", "A", True),
    ]
    assert capsys.readouterr().out.splitlines()[0] == "seed image 66.67"


def test_a_partial_score_is_printed_and_marked(data, capsys):
    out = data / "out.json"
    assert run(data, [answer(1, "A"), answer(1, "A"), answer(7, "A")], "--json", out) == 3
    text = capsys.readouterr().out
    assert text.startswith("seed image 33.33  PARTIAL\n  2 of 3 questions have no answer and count as wrong\n")
    assert "over the 1 answered ones only: 100.00" in text
    assert "rows 3, scored 1, missing 2, duplicate 1, unknown 1" in text
    assert "1 predictions belong to no question" in text and "1 predictions repeat a question" in text
    assert not json.loads(out.read_text())["complete"]


def test_what_the_official_scorer_says_is_named(data, capsys):
    rows = [answer(1, "A"), answer(2, "B"), answer(3, "B")]
    assert run(data, rows) == 0
    assert (
        "the official scorer stops on this input: type Text Understanding has no right answer"
        in capsys.readouterr().out
    )
    with pytest.raises(InputError, match="stops here"):
        run(data, rows, "--official")


def test_a_number_of_the_official_scorer_is_shown_with_its_rule(data, capsys):
    rows = [{"question_id": "1", "question_type_id": 1, "data_type": "image", "answer": letter} for letter in "AB"]
    document(data / "seed_bench" / "SEED-Bench.json", {"questions": rows, "question_type": {}})
    assert run(data, [answer(1, "A"), answer(1, "B")]) == 0
    assert (
        "the official scorer gives 50.0000, because the official rule differs: it keeps one" in capsys.readouterr().out
    )
    assert run(data, [answer(1, "A"), answer(1, "B")], "--official") == 0
    assert "without --official, this command gives 100.0000" in capsys.readouterr().out


def test_half_an_emoji_does_not_break_the_rows_file(data):
    file = data / "rows.jsonl"
    assert run(data, [answer(n, "\ud83d") for n in (1, 2, 3)], "--per-row", file) == 0
    assert json.loads(file.read_text().splitlines()[0])["text"] == "\ud83d"


def test_unusable_input_is_an_error_with_the_place(data):
    with pytest.raises(InputError, match=r"merge\.jsonl is empty"):
        run(data, [])
    with pytest.raises(InputError, match=r"cannot write .*merge\.jsonl"):
        run(data, [answer(1, "A")], "--json", data / "merge.jsonl" / "x.json")
