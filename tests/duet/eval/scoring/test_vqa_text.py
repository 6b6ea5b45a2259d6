"""Normalisation and soft accuracy against their definitions, written out slowly."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duet.eval.scoring.vqa_text import PUNCTUATION, normalise, soft_accuracy


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Dakota-Digital", "dakota digital"),
        ("Dakota - Digital", "dakota digital"),  # touches a blank: deleted, everywhere in the text
        ("a-b -c", "ab c"),
        ("$1,000.", "$1000"),
        ("5 p.m.", "5 pm"),
        ("3.14. .5", "3.14 .5"),
        ("Hershey's", "hershey 's"),
        ("dont walk", "don't walk"),
        ("couldnt've couldn'tve", "couldn't've couldn't've"),
        ("somebody'd", "somebodyd"),
        ("ow's'at", "ow 's'at"),  # the blank before 's comes first
        ("y'allll yall", "y'all'll y'all"),
        ("Ten, none? TWO", "10 0 2"),
        ("an apple\nthe\ttree", "apple tree"),
        ("What?!", "what"),
        ("a", ""),
        ("", ""),
        ("x" + "." * 40, "x" + "." * 8),  # at most 32 full stops
    ],
)
def test_normalise(text, expected):
    assert normalise(text) == expected


@given(st.text(alphabet="ab1 .,?!-/'s\n\t", max_size=30))
def test_normalise_step_by_step(text):
    text_1 = re.sub("[,?]", "", text.lower()).replace("'s", " 's").strip().replace("\n", " ").replace("\t", " ").strip()
    text_2 = text_1
    for mark in PUNCTUATION:
        touches = any(mark in pair and " " in pair for pair in pairwise(text_1))
        text_2 = text_2.replace(mark, "" if touches else " ")
    text_3 = "".join(
        character
        for place, character in enumerate(text_2)
        if character != "." or text_2[place + 1 : place + 2].isdigit()
    )
    assert normalise(text) == " ".join(word for word in text_3.split() if word != "a")


@given(
    st.sampled_from(["cat", "dog", "cow", "the"]),
    st.lists(st.sampled_from(["cat", "Dog.", "cow", ""]), min_size=10, max_size=10),
)
def test_soft_accuracy_leaves_one_human_out(text, answers):
    votes = []
    for left_out in range(10):
        others = answers[:left_out] + answers[left_out + 1 :]
        votes.append(min(1, sum(normalise(other) == normalise(text) for other in others) / 3))
    assert soft_accuracy(text, answers) == pytest.approx(sum(votes) / 10, abs=1e-12)


@pytest.mark.parametrize(("equal", "expected"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_soft_accuracy_by_number_of_equal_answers(equal, expected):
    assert soft_accuracy("Cat", ["cat"] * equal + ["dog"] * (10 - equal)) == pytest.approx(expected, abs=1e-12)
