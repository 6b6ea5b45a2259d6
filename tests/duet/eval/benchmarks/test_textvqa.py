"""TextVQA: rows found by picture and question in every prompt form, OCR tokens reported, repeated lines."""

import pytest

from duet.eval.benchmarks import get
from duet.eval.benchmarks.textvqa import ocr_tokens, question_of
from duet.eval.types import InputError
from tests.eval_files import SHORT, answer, document, lines, score

OCR = "\nReference OCR token: STOP, 12"


@pytest.fixture
def folder(tmp_path):
    own = tmp_path / "textvqa"
    rows = [
        {"question": "what is it?", "image_id": "aa", "answers": ["stop"] * 10, "question_id": 34602},
        {"question": "Which number?", "image_id": "aa", "answers": ["12"] * 2 + ["13"] * 8, "question_id": 34603},
        {"question": "what is it?", "image_id": "bb", "answers": ["go"] * 10, "question_id": 34604},
    ]
    document(own / "TextVQA_0.5.1_val.json", {"dataset_type": "val", "data": rows})
    asked = [
        {
            "question_id": row["image_id"],
            "image": f"{row['image_id']}.jpg",
            "category": "default",
            "text": row["question"].capitalize() + OCR + SHORT,
        }
        for row in rows
    ]
    lines(own / "llava_textvqa_val_v051_ocr.jsonl", asked)
    return own


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [
        (f"What is it?{OCR}{SHORT}", "STOP, 12"),
        (f"Reference OCR token: STOP\nWHAT IS IT?{SHORT}", "STOP"),
        (f"What is it?\nReference OCR token: {SHORT}", ""),
        (f"what is it?{SHORT}", None),
        (f"<image>\nWhat is it?{SHORT}", None),
        ("OCR tokens: STOP, 12. Question: What is it? Short answer:", "STOP, 12"),
        ("OCR tokens: 1\n2 Question: what is it? Short answer:", "1\n2"),
    ],
)
def test_prompt_forms(prompt, tokens):
    assert question_of(prompt) == "what is it?"
    assert ocr_tokens(prompt) == tokens


def test_load(folder):
    samples = get("textvqa").load(folder)
    assert [sample.id for sample in samples] == ["aa", "aa", "bb"]
    assert samples[1].question == f"Which number?{OCR}{SHORT}" and samples[1].answer[0] == "12"
    assert samples[1].images == (str(folder / "train_images" / "aa.jpg"),)
    assert len({sample.key for sample in samples}) == 3


def test_score_and_ocr_note(folder):
    rows = [
        answer("bb", "Go!", f"What is it?{SHORT}"),
        answer("aa", "the 12", f"which number?{OCR}{SHORT}"),
        answer("aa", "Stop.", f"What is it?\nReference OCR token: {SHORT}"),
    ]
    result = score("textvqa", folder, rows)
    assert result.headline == pytest.approx(100 * (1 + 0.6 + 1) / 3)
    assert result.summary.notes == ("OCR tokens are in 1 of 3 prompts (the line for them, maybe empty, in 2)",)
    assert result.rows[1]["parsed"] == "12" and result.rows[1]["score"] == pytest.approx(0.6)


def test_repeated_lines_count_once_here_and_twice_in_the_original(folder):
    prompt = f"What is it?{SHORT}"
    rows = [
        answer("aa", "stop", prompt),
        answer("aa", "go", prompt),
        answer("bb", "go", prompt),
        answer("aa", "12", f"Which number?{SHORT}"),
    ]
    result = score("textvqa", folder, rows)
    assert (result.headline, result.counts.duplicate) == (pytest.approx(100 * 1.6 / 3), 1)
    assert result.other == pytest.approx(100 * 2.6 / 4)
    assert score("textvqa", folder, rows, official=True).headline == pytest.approx(65)


def test_missing_rows_stay_in_the_denominator(folder):
    result = score("textvqa", folder, [answer("aa", "stop", f"What is it?{SHORT}")])
    assert (result.headline, result.answered, result.other) == (pytest.approx(100 / 3), 100, 100)


def test_a_prompt_that_fits_no_question_is_unknown_and_stops_the_original(folder):
    rows = [answer("aa", "stop", f"What is it?{SHORT}"), answer("bb", "go", f"Which number?{SHORT}")]
    result = score("textvqa", folder, rows)
    assert result.counts.unknown == 1 and "line 2: no question of picture bb" in result.other


def test_files_without_prompt_go_by_order_and_lmms_eval_by_the_annotation_id(folder):
    rows = [answer("aa", "stop"), answer("aa", "13"), answer("bb", "go")]
    assert score("textvqa", folder, rows).headline == 100
    sample = {"doc_id": 0, "input": f"What is it?{SHORT}", "filtered_resps": ["go"]}
    result = score("textvqa", folder, [sample | {"submission": {"question_id": 34604, "answer": "go"}}])
    assert result.answered == 100 and result.counts.scored == 1


def test_ten_answers_are_needed(folder):
    document(folder / "TextVQA_0.5.1_val.json", {"data": [{"question": "q", "image_id": "a", "answers": ["x"]}]})
    with pytest.raises(InputError, match=r"data\[0\]: has 1 answers, expected ten"):
        score("textvqa", folder, [answer("a", "x")])


@pytest.mark.parametrize(
    "prompt",
    [
        "What is it?",
        f"<image>\nWhat is it?{SHORT}",
        f"What is it?\nReference OCR token:{SHORT}",
        f"What is it?{OCR}{SHORT}\n",
        "OCR tokens: STOP Question: What is it?",
        "",
        None,
    ],
)
def test_prompts_that_llava_asserts_on_stop_the_official_score(folder, prompt):
    rows = [answer("aa", "stop", prompt), answer("bb", "go", f"What is it?{SHORT}")]
    with pytest.raises(InputError, match="official scorer of textvqa stops here: line 1"):
        score("textvqa", folder, rows, official=True)


@pytest.mark.parametrize(
    "prompt",
    [
        f"What is it?{SHORT}",
        f"What is it?{OCR}{SHORT}",
        f"Reference OCR token: STOP\nWhat is it?{SHORT}",
        f"What is it?\nReference OCR token: {SHORT}",
        "OCR tokens: STOP. Question: What is it? Short answer:",
    ],
)
def test_prompts_that_llava_reads_are_scored_officially(folder, prompt):
    assert score("textvqa", folder, [answer("aa", "stop", prompt)], official=True).headline == 100


def test_ten_answers_in_one_text_are_not_ten(folder):
    document(folder / "TextVQA_0.5.1_val.json", {"data": [{"question": "q", "image_id": "a", "answers": "abcdefghij"}]})
    with pytest.raises(InputError, match=r"data\[0\]: answers is 'abcdefghij', expected a list of texts"):
        score("textvqa", folder, [answer("a", "x")])
