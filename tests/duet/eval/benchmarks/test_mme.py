"""MME: first four characters, pairs by picture, both layouts of the release, the original's blind pairs."""

import pytest

from duet.eval.benchmarks import get
from duet.eval.benchmarks.mme import COGNITION, PERCEPTION, bare, parse
from duet.eval.types import InputError
from tests.eval_files import SHORT, answer, lines, score

NESTED = ("artwork", "celebrity", "landmark", "posters", "scene")
SUBTASKS = (*PERCEPTION, *COGNITION)


@pytest.fixture
def folder(tmp_path):
    """Two pictures per subtask; every gold yes is asked first, one with two blanks before the suffix."""
    own, rows = tmp_path / "MME", []
    for subtask in SUBTASKS:
        for stem in ("01", "02"):
            texts = {"Yes": f"Is {stem} real?", "No": f"Is {stem} fake?"}
            gap = "  " if stem == "02" else " "
            where = f"{subtask}/questions_answers_YN" if subtask in NESTED else subtask
            path = own / "MME_Benchmark_release_version" / where / f"{stem}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{text}{gap}Please answer yes or no.\t{gold}\n" for gold, text in texts.items()))
            name = f"{subtask}/images/{stem}.jpg" if subtask in NESTED else f"{subtask}/{stem}.jpg"
            rows += [
                {"question_id": name, "image": name, "text": text + SHORT, "category": subtask}
                for text in texts.values()
            ]
    lines(own / "llava_mme.jsonl", rows)
    return own


def answers(folder) -> list[dict]:
    return [answer(sample.id, sample.answer.capitalize(), sample.question) for sample in get("mme").load(folder)]


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("Yes", "yes"),
        ("no.", "no"),
        ("Not sure", "no"),
        ("None", "no"),
        ("know", "no"),
        ("eyes", "yes"),
        ("", "other"),
        ("The answer is yes", "other"),
        (" Yes", "yes"),
        ("  Yes", "other"),
        ("\nno", "no"),
        ("NO\tway", "no"),
    ],
)
def test_parser(text, parsed):
    assert parse(text) == parsed


def test_load_reads_both_layouts(folder):
    samples = get("mme").load(folder.parent)
    assert len(samples) == 56 == len({sample.key for sample in samples})
    poster = next(sample for sample in samples if sample.group == "posters")
    assert (poster.answer, poster.question) == ("yes", "Is 01 real?" + SHORT)
    assert poster.images == (str(folder / "MME_Benchmark_release_version/posters/images/01.jpg"),)
    assert bare("<image>\nIs it?  Please answer yes or no.") == bare("Is it?" + SHORT) == "Is it?"


def test_points(folder):
    rows = answers(folder)
    assert score("mme", folder, rows).headline == 2800
    rows[0]["text"] = "Perhaps"  # existence: 3 of 4 right, 1 of 2 pictures
    result = score("mme", folder, rows)
    values = result.summary.metrics
    assert (values["existence"], values["existence_acc"], values["existence_acc_plus"]) == (125, 75, 50)
    assert (values["perception"], values["cognition"], result.headline) == (1925, 800, 2725)
    tally = {"questions": 4, "right": 3, "pictures": 2, "both_right": 1, "other": 1}
    assert result.summary.tallies["existence"] == tally
    assert result.other == result.headline and result.summary.notes == ()


def test_pairs_are_pictures_whatever_the_order(folder):
    rows = answers(folder)
    rows[0]["text"] = rows[1]["text"] = "No sir"
    shuffled = [rows[0], rows[2], rows[1], rows[3], *rows[4:]]
    assert score("mme", folder, rows).summary.metrics["existence"] == 125
    assert score("mme", folder, shuffled).summary.metrics["existence"] == 125
    assert score("mme", folder, shuffled, official=True).summary.metrics["existence"] == 75 + 50
    rows[3]["text"] = "Yes"  # picture 1 half right, picture 2 half right
    official = score("mme", folder, [rows[0], rows[3], rows[1], rows[2], *rows[4:]], official=True)
    assert official.summary.metrics["existence"] == 50 + 50 and official.other < official.headline


def test_two_missing_answers_misalign_the_original_only(folder):
    rows = answers(folder)
    cut = [rows[0], rows[2], *rows[4:]]
    result = score("mme", folder, cut)
    assert not result.complete and result.summary.metrics["existence"] == 50
    assert result.other == 2800  # a full score for the half of the answers


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda rows: rows[1:], "existence: odd number of lines"),
        (lambda rows: rows[4:], "subtask existence has no answer"),
        (lambda rows: [rows[0] | {"text": "Yes\tindeed"}, *rows[1:]], "line 1: the answer holds a tab or a line end"),
        (lambda rows: [*rows, answer("OCR/99.jpg", "Yes", "Is it?")], "line 57: the release has no such question"),
    ],
)
def test_where_the_original_stops(folder, change, reason):
    rows = change(answers(folder))
    assert reason in score("mme", folder, rows).other
    with pytest.raises(InputError, match="stops here"):
        score("mme", folder, rows, official=True)


def test_tabs_and_line_ends_are_part_of_the_answer(folder):
    rows = answers(folder)
    rows[0]["text"], rows[1]["text"] = "Yes\tindeed", "No\nway"
    assert score("mme", folder, rows).headline == 2800


def test_a_flat_table_may_stand_for_the_release(folder):
    gold = [
        {"category": sample.group, "id": "01.x", "question": "Is 01 real? Please answer yes or no.", "answer": "Yes"}
        for sample in get("mme").load(folder)[::4]
    ]
    own = folder.parent / "flat"
    lines(own / "gt.jsonl", gold)
    lines(
        own / "llava_mme.jsonl", [{"question_id": "OCR/01.jpg", "image": "OCR/01.jpg", "text": "Is 01 real?" + SHORT}]
    )
    result = score("mme", own, [answer("OCR/01.jpg", "Yes", "Is 01 real?" + SHORT)])
    assert result.summary.metrics["OCR_acc"] == 100 and result.complete
    assert "subtasks without questions count 0: existence" in result.summary.notes[0]
    assert result.summary.notes[1] == "the release has 13 more questions than llava_mme.jsonl asks"


def test_a_release_that_does_not_fit_is_refused(folder):
    path = folder / "MME_Benchmark_release_version" / "OCR" / "02.txt"
    path.write_text("Is 02 real? Please answer yes or no. Yes\n")
    with pytest.raises(InputError, match=r"OCR/02\.txt:1: expected question, tab, Yes or No"):
        score("mme", folder, [answer("OCR/01.jpg", "Yes")])
    path.write_text("Is 02 real? Please answer yes or no.\tMaybe\n")
    with pytest.raises(InputError, match=r"OCR/02\.txt:1: answer 'Maybe', expected Yes or No"):
        score("mme", folder, [answer("OCR/01.jpg", "Yes")])
    path.unlink()
    with pytest.raises(
        InputError, match=r"2 of 56 questions have no answer there \(the first: OCR/02\.jpg, 'Is 02 real\?'"
    ):
        score("mme", folder, [answer("OCR/01.jpg", "Yes")])


def test_without_question_file_the_release_is_asked(folder):
    rows = answers(folder)
    (folder / "llava_mme.jsonl").unlink()
    assert score("mme", folder, rows).headline == 2800
