"""What all benchmarks share, seen on a small ScienceQA and SEED-Bench: counts, partial scores, per-row decisions."""

import pytest

from duet.eval.benchmarks import BENCHMARKS, get
from duet.eval.types import InputError
from tests.eval_files import answer, document, score


@pytest.fixture
def folder(tmp_path):
    own = tmp_path / "scienceqa"
    problem = {"choices": ["no", "yes"], "answer": 1, "image": "image.png"}
    document(own / "problems.json", {"1": problem, "2": problem, "3": problem | {"image": None}})
    document(own / "pid_splits.json", {"test": ["1", "2", "3"]})
    return own


def test_names_and_aliases():
    assert [get(name).name for name in BENCHMARKS] == list(BENCHMARKS)
    assert get("SQA").name == "scienceqa" and get("seed_bench").name == "seed"
    with pytest.raises(InputError, match="no benchmark 'vqav2'; there are: pope, gqa"):
        get("vqav2")


def test_missing_duplicate_and_unknown_are_counted(folder):
    result = score("sqa", folder, [answer("1", "B"), answer("1", "A"), answer("9", "B"), answer("3", "B")])
    counts = result.counts
    assert (counts.rows, counts.scored, counts.missing, counts.duplicate, counts.unknown) == (3, 2, 1, 1, 1)
    assert not result.complete
    assert result.headline == 0  # the last answer to 1 is wrong, 2 is missing
    assert result.answered == 0
    assert result.summary.metrics["total_accuracy"] == pytest.approx(100 / 3)


def test_every_line_and_every_missing_question_has_its_row(folder):
    result = score("sqa", folder, [answer("1", "B"), answer("1", "B. yes"), answer("9", "B"), answer("3", "?")])
    rows = [
        (row["line"], row["question_id"], row["status"], row.get("parsed"), row.get("correct")) for row in result.rows
    ]
    assert rows == [
        (1, "1", "duplicate", "B", True),
        (2, "1", "scored", "B", True),
        (3, "9", "unknown", None, None),
        (4, "3", "scored", "FAILED", False),
        (None, "2", "missing", None, False),
    ]


def test_a_part_that_nobody_answered_is_left_out_with_a_note(folder):
    result = score("sqa", folder, [answer("1", "B"), answer("2", "A")])
    assert result.complete and result.counts.rows == 2
    assert result.summary.metrics == {"image_accuracy": 50}
    assert result.summary.notes == ("no answer outside the image questions: the other 1 are left out",)


def test_the_headline_part_alone_missing_is_partial(folder):
    result = score("sqa", folder, [answer("3", "B")])
    assert (result.headline, result.answered, result.counts.missing) == (0, None, 2)


def test_foreign_files_are_refused(folder):
    with pytest.raises(InputError, match=r"none of the 1 predictions belongs .* \(the first has id 'x', prompt None\)"):
        score("sqa", folder, [answer("x", "B")])


def test_official_says_where_the_original_stops(folder):
    rows = [answer(name, "B", "Is it?") for name in "123"]
    assert score("sqa", folder, rows).other == "division by zero: no saved prompt holds <image>"
    with pytest.raises(
        InputError, match=r"official scorer of scienceqa stops here: division by zero.*without --official"
    ):
        score("sqa", folder, rows, official=True)
