"""Prediction files of every accepted origin give the same thing: id, prompt, answer, line."""

import json

import pytest

from duet.eval.scoring.predictions import read_predictions
from duet.eval.types import InputError, Prediction
from tests.eval_files import document, lines


def test_llava_answers(tmp_path):
    path = lines(tmp_path / "merge.jsonl", [{"question_id": 7, "prompt": "Is it?", "text": "Yes", "metadata": {}}])
    assert read_predictions(path) == [Prediction("Yes", 1, "7", "Is it?")]


def test_video_llava_answers(tmp_path):
    path = lines(tmp_path / "merge.jsonl", [{"id": "v_0", "question": "who?", "answer": "man", "pred": "A man."}])
    assert read_predictions(path) == [Prediction("A man.", 1, "v_0", "who?")]


def test_lmms_eval_samples(tmp_path):
    rows = [
        {
            "doc_id": 4,
            "input": "Is it?",
            "filtered_resps": ["Yes"],
            "target": "yes",
            "f1": {"question_id": 2, "score": 1},
        },
        {
            "doc_id": 5,
            "arguments": [["Was it?", {}]],
            "resps": [["No"]],
            "doc": {"question_id": "q", "category": "random"},
        },
        {"doc_id": 6, "input": "Who?", "filtered_resps": ["cat"], "exact_match": 1.0},
    ]
    expected = [
        Prediction("Yes", 1, "2", "Is it?", doc=4),
        Prediction("No", 2, "q", "Was it?", doc=5, category="random"),
        Prediction("cat", 3, None, "Who?", doc=6),
    ]
    assert read_predictions(lines(tmp_path / "samples.jsonl", rows)) == expected
    assert read_predictions(document(tmp_path / "older.json", {"model_configs": {}, "logs": rows})) == expected


def test_an_array_of_gqa_submissions(tmp_path):
    path = document(tmp_path / "testdev_predictions.json", [{"questionId": "201", "prediction": "yes"}])
    assert read_predictions(path) == [Prediction("yes", 1, "201")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "Is it?", "text": "Yes"}, r"p\.jsonl:2: field 'question_id' is missing \(it has: prompt, text\)"),
        ({"question_id": 1, "prompt": "Is it?"}, r"p\.jsonl:2: field 'text' is missing"),
        ({"question_id": 1, "text": None}, r"p\.jsonl:2: text is None, expected a text"),
        ({"question_id": 1, "text": ["Yes"]}, r"p\.jsonl:2: text is \['Yes'\], expected a text"),
        ({"doc_id": 1, "filtered_resps": []}, r"p\.jsonl:2: filtered_resps is \[\], expected a text"),
        ({"doc_id": "x", "filtered_resps": ["Yes"]}, r"p\.jsonl:2: doc_id is 'x', expected a whole number"),
    ],
)
def test_unusable_lines_are_named(tmp_path, row, message):
    path = tmp_path / "p.jsonl"
    path.write_text("\n" + json.dumps(row))
    with pytest.raises(InputError, match=message):
        read_predictions(path)


def test_an_empty_file_is_no_prediction_file(tmp_path):
    (tmp_path / "p.jsonl").write_text("\n \n")
    with pytest.raises(InputError, match="holds no prediction"):
        read_predictions(tmp_path / "p.jsonl")
    with pytest.raises(InputError, match="expected an array of objects"):
        read_predictions(document(tmp_path / "p.json", [1]))
