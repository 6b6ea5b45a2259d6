"""Predictions are matched to questions by name: in any order; repeated names are filled in turn, the last one wins."""

from hypothesis import given
from hypothesis import strategies as st

from duet.eval.scoring.matching import match
from duet.eval.types import Prediction, Sample


def sample(row: int, *names) -> Sample:
    return Sample(str(row), str(row), "", names=names)


def names(prediction: Prediction) -> list:
    return [(prediction.id, prediction.prompt), (prediction.id,)]


def test_the_telling_name_goes_first():
    samples = [sample(0, ("a", "who?"), ("a",)), sample(1, ("a", "what?"), ("a",))]
    told = [Prediction("cat", 1, "a", "what?"), Prediction("man", 2, "a", "who?")]
    assert match(samples, told, names).owners == [1, 0]
    untold = [Prediction("man", 1, "a"), Prediction("cat", 2, "a")]
    assert match(samples, untold, names).owners == [0, 1]
    assert match(samples, [told[0], untold[0]], names).owners == [1, 0]


def test_counts_of_missing_duplicate_and_unknown():
    samples = [sample(0, ("a",)), sample(1, ("b",)), sample(2, ("c",))]
    lines = [Prediction("1", 1, "a"), Prediction("2", 2, "x"), Prediction("3", 3, "a"), Prediction("4", 4, "b")]
    found = match(samples, lines, names)
    assert {row: line.text for row, line in found.answers.items()} == {0: "3", 1: "4"}
    assert (found.duplicate, found.unknown) == (1, 1)


def test_a_second_run_appended_replaces_the_first_row_by_row():
    samples = [sample(0, ("a",)), sample(1, ("a",))]
    found = match(samples, [Prediction(text, 1, "a") for text in ("1", "2", "3", "4")], names)
    assert [found.answers[row].text for row in (0, 1)] == ["3", "4"]
    assert found.duplicate == 2


@given(st.permutations(range(6)), st.lists(st.integers(-2, 5), max_size=12))
def test_every_line_is_counted_once(order, ids):
    samples = [sample(row, (str(row),)) for row in order]
    found = match(samples, [Prediction("", 1, str(name)) for name in ids], names)
    known = [name for name in ids if name >= 0]
    assert len(found.answers) == len(set(known))
    assert found.unknown == len(ids) - len(known)
    assert found.duplicate == len(known) - len(set(known))
    assert all(samples[row].names == ((line.id,),) for row, line in found.answers.items())
