"""ScienceQA: the three answer forms, picture questions by the annotation, prompts with and without picture."""

import pytest

from duet.eval.benchmarks import get
from duet.eval.benchmarks.scienceqa import parse
from duet.eval.types import InputError
from tests.eval_files import LETTER, answer, document, score


@pytest.fixture
def folder(tmp_path):
    own = tmp_path / "scienceqa"
    choices = ["red", "green", "blue"]
    document(
        own / "problems.json",
        {
            "5": {"question": "Which?", "choices": choices, "answer": 0, "hint": "Look.", "image": "image.png"},
            "11": {"question": "What?", "choices": choices, "answer": 1, "hint": "", "image": "image.png"},
            "4": {"question": "Why?", "choices": choices[:2], "answer": 1, "hint": "", "image": None},
        },
    )
    document(own / "pid_splits.json", {"train": [], "test": ["4", "5", "11"]})
    options = "\nA. red\nB. green\nC. blue"
    document(
        own / "llava_test_CQM-A.json",
        [
            {"id": "4", "conversations": [{"from": "human", "value": "Why?\nA. red\nB. green"}]},
            {
                "id": "5",
                "image": "5/image.png",
                "conversations": [{"from": "human", "value": f"<image>\nContext: Look.\nWhich?{options}"}],
            },
            {
                "id": "11",
                "image": "11/image.png",
                "conversations": [{"from": "human", "value": f"What?{options}\n<image>"}],
            },
        ],
    )
    return own


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("B", "B"),
        ("B. green", "B"),
        ("B. ", "B"),
        ("B.", "FAILED"),
        ("b", "FAILED"),
        (" B", "FAILED"),
        ("F", "FAILED"),
        ("F. x", "FAILED"),
        ("", "FAILED"),
        ("AB", "FAILED"),
        ("So. The answer is C.", "C"),
        ("The answer is C", "FAILED"),
        ("The answer is CD", "C"),
        ("The answer is C\n", "FAILED"),
        ("The answer is Z.", "Z"),
        ("The answer is c.", "FAILED"),
        ("The answer is A. The answer is B.", "FAILED"),
    ],
)
def test_parser(text, parsed):
    assert parse(text) == parsed


def test_load_and_record(folder):
    text, shown, late = get("sqa").load(folder)
    assert (text.images, text.answer, text.group) == ((), "B", "text")
    assert text.question == "Why?\nA. red\nB. green" + LETTER
    assert shown.question == "Context: Look.\nWhich?\nA. red\nB. green\nC. blue" + LETTER
    assert shown.images == (str(folder / "images" / "test" / "5" / "image.png"),)
    assert late.question.startswith("What?\nA. red") and "<image>" not in late.question
    assert get("sqa").record(shown, "A")["prompt"] == "<image>\n" + shown.question
    assert get("sqa").record(text, "A")["prompt"] == text.question


def test_image_and_total_accuracy(folder):
    rows = [get("sqa").record(sample, text) for sample, text in zip(get("sqa").load(folder), "BAC", strict=True)]
    result = score("sqa", folder, rows)
    assert result.summary.metrics == {"image_accuracy": 50, "total_accuracy": pytest.approx(200 / 3)}
    assert result.summary.tallies["image"] == {"rows": 2, "right": 1, "failed": 0}
    assert result.other == result.headline


def test_unanswered_picture_questions_stay_in_the_denominator(folder):
    rows = [get("sqa").record(sample, text) for sample, text in zip(get("sqa").load(folder), "BAC", strict=True)][:2]
    result = score("sqa", folder, rows)
    assert (result.headline, result.other, result.complete) == (50, 100, False)
    official = score("sqa", folder, rows, official=True)
    assert (official.headline, official.complete) == (100, False)


def test_a_letter_beyond_the_choices_is_wrong(folder):
    assert (
        score("sqa", folder, [answer("4", "C"), answer("5", "The answer is Z.")]).summary.metrics["total_accuracy"] == 0
    )


def test_lmms_eval_rows_go_by_their_prompt(folder):
    rows = [
        {"doc_id": n, "input": sample.question, "filtered_resps": [sample.answer], "exact_match": 1.0}
        for n, sample in enumerate(get("sqa").load(folder)[1:])
    ]
    result = score("sqa", folder, rows)
    assert (result.headline, result.complete, result.counts.rows) == (100, True, 2)


def test_annotations_that_do_not_fit(folder):
    document(folder / "pid_splits.json", {"test": ["99"]})
    with pytest.raises(InputError, match=r"problems\.json: field '99' is missing"):
        score("sqa", folder, [answer("4", "A")])
    document(folder / "pid_splits.json", {"test": ["4"]})
    document(folder / "problems.json", {"4": {"choices": ["a", "b"], "answer": 2}})
    with pytest.raises(InputError, match="problem 4: answer 2 is not one of its 2 choices"):
        score("sqa", folder, [answer("4", "A")])
