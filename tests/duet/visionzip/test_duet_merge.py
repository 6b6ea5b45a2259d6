"""DUET's local clusters, both readings, against the plain restatements; and every corner of the counts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from duet.budget import Stage1
from duet.visionzip.duet_merge import DuetMerge
from tests.duet.visionzip.stage1 import assert_equal, make_pictures, reduce, states_of
from tests.plain_stage1 import RULES, released

readings = pytest.mark.parametrize("reading", ["released", "paper"])


@readings
@given(
    st.integers(1, 14), st.booleans(), st.integers(1, 15), st.integers(0, 14), st.integers(1, 6),
    st.sampled_from(["cls_row", "column_mean"]), st.integers(0, 10**6),
)  # fmt: skip
def test_equals_the_plain_rule(reading, patches, cls, dominant, contextual, width, score, seed):
    assume(dominant + contextual <= patches + cls)
    pictures = make_pictures(patches, cls, seed)
    reduction = reduce(DuetMerge(reading, score), states_of(pictures), Stage1(dominant, contextual, width))
    assert_equal(reduction, [RULES[reading](picture, dominant, contextual, width, score) for picture in pictures])
    assert reduction.features.shape[1] == dominant + contextual


@readings
@pytest.mark.parametrize(
    ("dominant", "contextual", "width"),
    [(5, 3, 1), (5, 0, 4), (1, 4, 2), (6, 4, 4), (6, 7, 4), (1, 12, 4), (13, 0, 4)],
    ids=["w=1", "no contextual", "CLS alone", "pool cut short", "all others", "all patches", "only dominant"],
)
def test_corners(reading, dominant, contextual, width):
    pictures = make_pictures(12, True, 1)
    reduction = reduce(DuetMerge(reading), states_of(pictures), Stage1(dominant, contextual, width))
    assert_equal(reduction, [RULES[reading](picture, dominant, contextual, width) for picture in pictures])


def test_released_with_width_one_keeps_the_anchors_as_they_are():
    pictures = make_pictures(12, True, 2)
    reduction = reduce(DuetMerge(), states_of(pictures), Stage1(5, 3, 1))
    anchors = [picture.features[reduction.kept[b, 5:]] for b, picture in enumerate(pictures)]
    assert torch.equal(reduction.features[:, 5:], torch.stack(anchors))


def test_released_throws_away_what_is_outside_the_pool():
    pictures = make_pictures(12, True, 3)
    reduction = reduce(DuetMerge(), states_of(pictures), Stage1(5, 2, 3))
    assert (reduction.assign == -1).sum(1).tolist() == [12 - 4 - 6] * 2


def test_a_picture_alone_gives_the_same():
    pictures = make_pictures(12, True, 4, count=3)
    for reading in ("released", "paper"):
        together = reduce(DuetMerge(reading), states_of(pictures), Stage1(4, 3, 2))
        for b, picture in enumerate(pictures):
            alone = reduce(DuetMerge(reading), states_of([picture]), Stage1(4, 3, 2))
            row = together.row(b)
            assert row.contextual == alone.contextual == 3
            assert all(torch.equal(getattr(row, name), getattr(alone, name)) for name in ("features", "kept", "assign"))


def test_gradients_reach_features_only():
    states = states_of(make_pictures(10, True, 5))
    states.features.requires_grad_(True)
    states.keys.requires_grad_(True)
    reduction = reduce(DuetMerge(), states, Stage1(4, 2, 3))
    reduction.features.sum().backward()
    used = states.features.grad.abs().sum(-1) > 0
    assert torch.equal(used, reduction.assign >= 0)
    assert states.keys.grad is None


def test_ties_go_to_the_lower_patch():
    picture = make_pictures(8, True, 6, count=1)[0]
    picture.attention.fill_(1 / 9)
    reduction = reduce(DuetMerge(), states_of([picture]), Stage1(3, 2, 2))
    assert reduction.kept.tolist() == [[-1, 0, 1, 2, 4]]
    assert_equal(reduction, [released(picture, 3, 2, 2)])


def test_needs_and_unknown_reading():
    assert DuetMerge().needs == {"cls_attention", "keys"}
    assert DuetMerge("paper", "column_mean").needs == {"received_attention", "attention_rows"}
    with pytest.raises(ValueError, match="contextual_merge is 'mean'"):
        DuetMerge("mean")
