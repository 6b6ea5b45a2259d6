"""GQA: exact strings, breakdowns and the distribution distance, missing answers."""

import pytest

from duet.eval.benchmarks import get
from duet.eval.benchmarks.gqa import parse
from duet.eval.types import InputError
from tests.eval_files import SHORT, answer, document, lines, score


def entry(question, gold, structural, group=None, **more) -> dict:
    steps = [{"operation": "select", "argument": "sky (1)"}, {"operation": "query", "argument": "name"}]
    types = {"structural": structural, "semantic": "attr", "detailed": "x"}
    row = {"question": question, "answer": gold, "imageId": "1", "isBalanced": True, "types": types, "semantic": steps}
    return row | {"groups": {"global": group, "local": "x"}} | more


@pytest.fixture
def folder(tmp_path):
    own = tmp_path / "gqa"
    annotation = {
        "01": entry("Is it dark?", "no", "verify"),
        "02": entry("What color is it?", "red", "query", "color"),
        "03": entry("Which color is it?", "blue", "query", "color"),
        "04": entry("Is it old?", "no", "verify", isBalanced=False),
    }
    document(own / "data" / "testdev_balanced_questions.json", annotation)
    rows = [
        {"question_id": name, "image": "n1.jpg", "text": row["question"] + SHORT, "category": "default"}
        for name, row in annotation.items()
        if row["isBalanced"]
    ]
    lines(own / "llava_gqa_testdev_balanced.jsonl", rows)
    return own


@pytest.mark.parametrize(("text", "parsed"), [("Yes..", "yes"), (" No", " no"), ("a. b", "a. b"), ("RED", "red")])
def test_parser(text, parsed):
    assert parse(text) == parsed


def test_load(folder):
    sample = get("gqa").load(folder)[1]
    assert (sample.id, sample.answer, sample.question) == ("02", "red", "What color is it?" + SHORT)
    assert sample.images == (str(folder / "data" / "images" / "n1.jpg"),)


def test_breakdowns(folder):
    result = score("gqa", folder, [answer("01", "No."), answer("02", "Red"), answer("03", "red")])
    values = result.summary.metrics
    assert result.headline == values["accuracy"] == pytest.approx(200 / 3)
    assert (values["binary"], values["open"], values["structural/query"]) == (100, 50, 50)
    assert (values["words/3"], values["words/4"], values["steps/1"]) == (100, 50, pytest.approx(200 / 3))
    # colors: gold red 1, blue 1; answered red 2, blue 0 -> (1 + 1), weighted by 2 of 2, / 100
    assert values["distribution"] == pytest.approx(0.02)
    assert result.summary.tallies["open"] == {"rows": 2, "right": 1}
    assert result.other == result.headline


def test_unbalanced_questions_do_not_count(folder):
    rows = [answer(name, "no") for name in ("01", "02", "03", "04")]
    counts = score("gqa", folder, rows).counts
    assert (counts.rows, counts.unknown) == (3, 1)


def test_a_missing_answer_is_wrong_here_and_stops_the_original(folder):
    rows = [answer("01", "no"), answer("02", "red")]
    result = score("gqa", folder, rows)
    assert (result.headline, result.answered, result.other) == (
        pytest.approx(200 / 3),
        100,
        "no prediction for question 03",
    )
    with pytest.raises(InputError, match="no prediction for question 03"):
        score("gqa", folder, rows, official=True)


def test_lmms_eval_rows_need_the_same_question_in_the_same_place(folder):
    texts = ["Is it dark?", "What color is it?", "Which color is it?"]
    rows = [
        {"doc_id": n, "input": text + SHORT, "filtered_resps": [gold], "exact_match": 1.0}
        for n, (text, gold) in enumerate(zip(texts, ("no", "red", "blue"), strict=True))
    ]
    assert score("gqa", folder, rows[::-1]).headline == 100
    rows[0]["doc_id"] = 1
    counts = score("gqa", folder, rows).counts
    assert (counts.unknown, counts.missing) == (1, 1)


def test_annotations_without_details_still_score(folder):
    document(folder / "data" / "testdev_balanced_questions.json", {"01": {"question": "Is it?", "answer": "no"}})
    assert score("gqa", folder, [answer("01", "no")]).summary.metrics == {
        "accuracy": 100,
        "words/2": 100,
        "distribution": 0,
    }
    document(folder / "data" / "testdev_balanced_questions.json", {"01": {"question": "Is it?"}})
    with pytest.raises(InputError, match=r"question 01: field 'answer' is missing"):
        score("gqa", folder, [answer("01", "no")])
