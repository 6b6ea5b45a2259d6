"""VisionZip's rule against the plain restatement."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from duet.budget import Stage1
from duet.errors import UserError
from duet.visionzip.zip_merge import VisionZip
from tests.duet.visionzip.stage1 import assert_equal, make_pictures, reduce, states_of
from tests.plain_stage1 import visionzip


@given(
    st.integers(1, 14), st.booleans(), st.integers(1, 15), st.integers(0, 14),
    st.sampled_from(["cls_row", "column_mean"]), st.integers(0, 10**6),
)  # fmt: skip
def test_equals_the_plain_rule(patches, cls, dominant, contextual, score, seed):
    assume(dominant + contextual <= patches + cls)
    pictures = make_pictures(patches, cls, seed)
    reduction = reduce(VisionZip(score), states_of(pictures), Stage1(dominant, contextual))
    assert_equal(reduction, [visionzip(picture, dominant, contextual, 0, score) for picture in pictures])
    assert reduction.features.shape[1] == dominant + contextual


def test_nothing_is_thrown_away_while_there_is_a_contextual_token():
    reduction = reduce(VisionZip(), states_of(make_pictures(12, True, 0)), Stage1(4, 1))
    assert (reduction.assign >= 0).all()


def test_more_tokens_than_the_picture_has():
    with pytest.raises(UserError, match=r"asked for 14 tokens .* the picture has 12 and CLS"):
        VisionZip()(states_of(make_pictures(12, True, 0)), Stage1(10, 4))


def test_needs_and_unknown_score():
    assert VisionZip().needs == {"cls_attention", "keys"}
    assert VisionZip("column_mean").needs == {"received_attention", "keys"}
    with pytest.raises(ValueError, match="score is 'max'"):
        VisionZip("max")
