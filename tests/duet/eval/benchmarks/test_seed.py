"""SEED-Bench: exact letters, one id with two questions, types without right answer, pictures without videos."""

import pytest

from duet.eval.benchmarks import get
from duet.eval.types import InputError
from tests.eval_files import LETTER, answer, document, lines, score

CHOICES = "\nA. one\nB. two\nC. three\nD. four" + LETTER


def row(name, kind, gold, question, part="image") -> dict:
    choices = {f"choice_{letter}": word for letter, word in zip("abcd", ("one", "two", "three", "four"), strict=True)}
    about = {"question_id": name, "question_type_id": kind, "data_type": part, "answer": gold, "data_id": f"x_{name}"}
    return about | choices | {"question": question}


@pytest.fixture
def folder(tmp_path):
    own = tmp_path / "seed_bench"
    rows = [
        row("7", 1, "A", "How?"),
        row("49914", 1, "A", "Who?"),
        row("49914", 2, "B", "What?"),
        row("v3", 10, "C", "Where?", "video"),
    ]
    types = {"Scene Understanding": 1, "Instance Identity": 2, "Action Recognition": 10}
    document(own / "SEED-Bench.json", {"questions": rows, "question_type": types})
    asked = [
        {
            "question_id": r["question_id"] if r["data_type"] == "video" else int(r["question_id"]),
            "category": "x",
            "image": f"SEED-Bench-{r['data_type']}-image/{r['data_id']}",
            "text": r["question"] + CHOICES,
        }
        for r in rows
    ]
    lines(own / "llava-seed-bench.jsonl", asked)
    return own


ALL = [answer(7, "A"), answer(49914, "A"), answer(49914, "B"), answer("v3", "C")]


def test_load_gives_the_picture_questions(folder):
    samples = get("seed").load(folder)
    assert [sample.id for sample in samples] == ["7", "49914", "49914"]
    assert [sample.answer for sample in samples] == ["A", "A", "B"]
    assert samples[2].question == "What?" + CHOICES
    assert samples[2].images == (str(folder / "SEED-Bench-image-image" / "x_49914"),)


def test_parts_and_types(folder):
    result = score("seed", folder, [ALL[0] | {"text": "A."}, *ALL[1:]])
    values = result.summary.metrics
    assert (result.summary.headline, result.headline) == ("image", pytest.approx(200 / 3))
    assert (values["video"], values["total"]) == (100, 75)
    assert (values["Scene Understanding"], values["Instance Identity"]) == (50, 100)
    assert result.counts.rows == 4 and result.complete


def test_one_id_with_two_questions(folder):
    result = score("seed", folder, ALL)
    assert (result.headline, result.counts.duplicate) == (100, 0)
    assert result.other == pytest.approx(200 / 3)  # the original knows one answer per id
    told = [answer(49914, "B", "What?" + CHOICES), answer(49914, "A", "Who?" + CHOICES), ALL[0]]
    assert score("seed", folder, told).headline == 100
    result = score("seed", folder, told[:1] + told[2:])
    assert (result.counts.missing, result.headline) == (1, pytest.approx(200 / 3))


def test_ids_as_numbers_or_text(folder):
    assert score("seed", folder, [line | {"question_id": str(line["question_id"])} for line in ALL]).headline == 100


def test_pictures_alone_are_complete(folder):
    result = score("seed", folder, ALL[:3])
    assert (result.complete, result.counts.rows) == (True, 3)
    assert "total" not in result.summary.metrics and "the other 1 are left out" in result.summary.notes[0]
    assert not score("seed", folder, ALL[1:]).complete


def test_a_type_without_right_answer_stops_the_original_only(folder):
    rows = [*ALL[:3], answer("v3", "D")]
    result = score("seed", folder, rows)
    assert (result.headline, result.summary.metrics["Action Recognition"]) == (100, 0)
    assert result.other == "type Action Recognition has no right answer"
    with pytest.raises(InputError, match="type Action Recognition has no right answer"):
        score("seed", folder, rows, official=True)


def test_lmms_eval_rows(folder):
    rows = [
        {"doc_id": 0, "input": "How?" + CHOICES, "filtered_resps": ["A"], "seed_all": {"question_id": "7", "pred": "A"}}
    ]
    result = score("seed", folder, rows)
    assert (result.counts.scored, result.answered) == (1, 100)


def test_annotations_that_do_not_fit(folder):
    document(folder / "SEED-Bench.json", {"questions": [{"question_id": "7"}], "question_type": {}})
    with pytest.raises(InputError, match=r"SEED-Bench\.json: questions\[0\]: field 'question_type_id' is missing"):
        score("seed", folder, ALL)
