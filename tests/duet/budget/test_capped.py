"""Counts that are cut to a picture, and the two ways to count stage-2 candidates."""

from __future__ import annotations

import pytest

from duet.budget import Budget, Stage1
from duet.errors import UserError


@pytest.mark.parametrize(
    ("tokens", "wanted"),
    [(300, (170, 35)), (205, (170, 35)), (190, (170, 20)), (100, (99, 1)), (2, (1, 1)), (1, (1, 0))],
)
def test_counts_are_cut_as_in_the_released_code(tokens, wanted):
    assert Stage1(170, 35, capped=True).resolve(tokens, cls=False) == wanted


def test_without_contextual_tokens_a_small_picture_stays_whole():
    assert Stage1(170, capped=True).resolve(100, cls=False) == (100, 0)


def test_without_cutting_too_much_is_an_error():
    with pytest.raises(UserError, match="the picture has 100"):
        Stage1(170, 35).resolve(100, cls=False)


def test_ratios_count_what_entered():
    assert Budget(layers=(14, 21), ratios=(0.5, 0.25)).drops(1023) == ((1023, 511), (511, 255))


@pytest.mark.parametrize(("ratios", "left"), [((0.5, 0.25), [511, 383]), ((0.5, 0.0), [511, 256])])
def test_released_qwen_code_compounds_ratios(ratios, left):
    """1023 tokens: 383 are left instead of 255, and 256 instead of none."""
    now, found = 1023, []
    for candidates, survivors in Budget(layers=(14, 21), ratios=ratios).drops(1023, compounding=True):
        now += survivors - candidates
        found.append(now)
    assert found == left
