"""One road from a name, an average or numbers to counts: the same by every way, and solved for another model."""

from __future__ import annotations

import logging

import pytest

from duet.budget import DUET, FLAT, PYRAMID, Budget, find_backbone, resolve_budget
from duet.budget.schedules import FITPRUNE, ONE_DROP, PLAIN, SPARSEVLM, TOPS, VSCAN
from duet.errors import UserError

SHAPES = {"duet": DUET, "flat": FLAT, "pyramid": PYRAMID, "plain": PLAIN, "one drop": ONE_DROP, "vscan": VSCAN}
SHAPES |= {"tops": TOPS, "sparsevlm": SPARSEVLM, "fitprune": FITPRUNE}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("average", [192, 128, 104])
@pytest.mark.parametrize("backbone", ["llava15", "llava15_13b"])
def test_the_same_average_means_the_same_for_every_shape(shape, average, backbone):
    budget = resolve_budget(average, SHAPES[shape], backbone)
    assert budget.average(backbone) == pytest.approx(average, abs=0.6)


@pytest.mark.parametrize("shape", ["duet", "flat", "pyramid"])
def test_a_name_is_solved_for_a_model_that_it_was_not_made_for(shape, caplog):
    with caplog.at_level(logging.WARNING, "duet.budget"):
        budget = resolve_budget("llava15_128", SHAPES[shape], "llava15_13b")
    assert budget.average("llava15_13b") == pytest.approx(128, abs=0.6)
    assert "llava15_128 is made for llava15; its average of 128" in caplog.text and "llava15_13b" in caplog.text


def test_a_name_on_its_own_model_is_what_was_published_and_says_nothing(caplog):
    assert resolve_budget("llava15_128", DUET, "llava15") == Budget(170, 35, layers=(16, 24), ratios=(0.5, 0.0))
    assert resolve_budget("llava15_128", FLAT, "llava15") == Budget(108, 20)
    assert resolve_budget("llava15_128", ONE_DROP, "llava15").layers == (2,)
    assert not caplog.text


def test_a_name_out_of_reach_of_another_model():
    with pytest.raises(UserError, match=r"llava15_128 is made for llava15, not for this model: an average of 128"):
        resolve_budget("llava15_128", DUET, "mini")


def test_settings_of_qwen_hold_for_pictures_of_any_size():
    for backbone in ("qwen2_5_vl", find_backbone("qwen2_5_vl").with_patches(900)):
        assert resolve_budget("qwen2_5_vl_640_safe", DUET, backbone).dominant == 792


@pytest.mark.parametrize("given", [True, [], {"average": 3}, object()])
def test_what_is_no_budget(given):
    with pytest.raises(UserError, match="give a name of duet"):
        resolve_budget(given, DUET, "llava15")


@pytest.mark.parametrize("depth", [2, 4, 8, 28, 32, 40, 80])
def test_shapes_fit_any_depth(depth):
    for shape in SHAPES.values():
        places = shape.places(depth)
        assert all(0 < place < depth for place in places) and list(places) == sorted(set(places))
        if shape.stages == (2,):
            full = shape.ratios_at(1.0, depth)
            assert full == (1.0,) * len(places)
            for x in (0.0, 0.3, 0.7):
                ratios = shape.ratios_at(x, depth)
                assert len(ratios) == len(places) and list(ratios) == sorted(ratios, reverse=True)


def test_published_lists():
    """SparseVLM v1.5 at 64 keeps and recycles 82, 32, 18; FitPrune at 90 % enters 72.8 on average; FastV 30 after 2."""
    sparse = resolve_budget(82.25, SPARSEVLM, "llava15")
    assert sparse.keep_counts(576) == (82, 32, 18)
    fit = resolve_budget(72.8, FITPRUNE, "llava15")
    assert fit.keep_counts(576)[0] == pytest.approx(576 - 262, abs=2)
    assert resolve_budget(64, ONE_DROP, "llava15").keep_counts(576) == (30,)
