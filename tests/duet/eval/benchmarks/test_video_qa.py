"""Video questions: pairing by id, offline metrics under their own names, paths of the videos."""

import pytest

from duet.eval.benchmarks import get
from duet.eval.benchmarks.video_qa import contains, words
from duet.eval.types import InputError
from tests.eval_files import document, score

QUESTIONS = [
    {"video_name": "v7010", "question_id": "0", "question": "what is skidding ?"},
    {"video_name": "v7010", "question_id": "1", "question": "what color is it ?"},
    {"video_name": "v7011", "question_id": "2", "question": "who is singing ?"},
]
ANSWERS = [
    {"answer": "car", "type": 3, "question_id": "0"},
    {"answer": "red", "type": 3, "question_id": "1"},
    {"answer": "a man", "type": 3, "question_id": "2"},
]


@pytest.fixture
def folder(tmp_path):
    own = tmp_path / "GPT_Zero_Shot_QA" / "MSVD_Zero_Shot_QA"
    document(own / "test_q.json", QUESTIONS)
    document(own / "test_a.json", ANSWERS)
    return own


def line(name: str, text: str) -> dict:
    question = next(row["question"] for row in QUESTIONS if row["question_id"] == name)
    return {"id": name, "question": question, "answer": "", "pred": text}


def test_words_and_contains():
    assert words("The man, a 'singer'.") == ["man", "singer"]
    assert contains("There is a red car.", "red car") and contains("Red", "red")
    assert not contains("scared", "red") and not contains("red", "") and not contains("car red", "red car")


def test_offline_metrics_have_their_own_names(folder):
    result = score("msvd", folder, [line("0", "A car."), line("1", "It is red"), line("2", "woman")])
    assert result.summary.metrics == pytest.approx({"contains": 200 / 3, "exact": 100 / 3})
    assert "judge" in result.summary.notes[0] and "accuracy" not in result.summary.metrics


def test_a_missing_answer_counts_as_wrong(folder):
    result = score("msvd", folder, [line("0", "car"), line("1", "red")])
    assert (result.headline, result.answered, result.complete) == (pytest.approx(200 / 3), 100, False)


def test_root_own_folder_and_video_paths(folder, tmp_path):
    (folder / "videos").mkdir()
    (folder / "videos" / "v7010.avi").touch()
    samples = get("msvd").load(tmp_path)
    assert samples == get("msvd").load(folder) == get("msvd").load(folder.parent)
    assert [sample.video for sample in samples[::2]] == [
        str(folder / "videos" / name) for name in ("v7010.avi", "v7011.mp4")
    ]
    assert (samples[0].question, samples[0].answer) == ("what is skidding ?", "car")
    assert get("msvd").record(samples[0], "A car.") == line("0", "A car.") | {"answer": "car"}


def test_answers_are_paired_by_id_not_by_position(folder):
    document(folder / "test_a.json", ANSWERS[::-1])
    assert [sample.answer for sample in get("msvd").load(folder)] == ["car", "red", "a man"]


def test_repeated_ids_are_told_apart_by_question_or_order(folder):
    document(folder / "test_q.json", [*QUESTIONS, QUESTIONS[0] | {"question": "what falls ?"}])
    document(folder / "test_a.json", [*ANSWERS, ANSWERS[0] | {"answer": "tree"}])
    rows = [
        {"id": "0", "question": "what falls ?", "pred": "tree"},
        line("0", "car"),
        line("1", "red"),
        line("2", "man"),
    ]
    result = score("msvd", folder, rows)
    assert (result.headline, result.counts.duplicate) == (100, 0)
    document(folder / "test_a.json", [ANSWERS[0] | {"answer": "tree"}, *ANSWERS])
    with pytest.raises(InputError, match=r"test_a\.json: question 0 of test_q\.json has 2 answers, expected one"):
        get("msvd").load(folder)


def test_a_question_without_answer_is_an_error(folder):
    document(folder / "test_a.json", ANSWERS[:2])
    with pytest.raises(InputError, match=r"question 2 of test_q\.json has 0 answers"):
        score("msvd", folder, [line("0", "car")])


@pytest.mark.parametrize(("task", "place"), [("tgif", "mp4"), ("msvd", "videos"), ("msrvtt", "videos/all")])
def test_three_names_one_protocol(task, place, tmp_path):
    benchmark = get(task)
    own = tmp_path / f"{task.upper()}_Zero_Shot_QA"
    document(own / "test_q.json", QUESTIONS)
    document(own / "test_a.json", ANSWERS)
    assert benchmark.load(tmp_path)[0].video == str(own / place / "v7010.mp4")
    assert (benchmark.prompt_format, benchmark.max_new_tokens) == ("llava_v1", 1024)
