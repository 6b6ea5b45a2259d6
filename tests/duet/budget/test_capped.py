"""Counts that are cut to a picture, and the two ways to count stage-2 candidates."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import duet
from duet.budget import Backbone, Budget, Stage1, find_backbone
from duet.errors import UserError
from tests.tiny_qwen import BUDGET, LAYERS, collate, make_row, tiny_qwen


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


@pytest.mark.parametrize(("ratios", "left"), [((0.5, 0.25), (511, 383)), ((0.5, 0.0), (511, 256))])
def test_released_qwen_code_compounds_ratios(ratios, left):
    """1023 tokens: 383 are left instead of 255, and 256 instead of none."""
    budget = Budget(870, 153, layers=(14, 21), ratios=ratios, ratio_base="compounding")
    assert budget.keep_counts(1023) == left
    assert budget.tokens_per_layer("qwen2_5_vl") == (1023,) * 14 + (left[0],) * 7 + (left[1],) * 7
    assert budget.only(2).keep_counts(1023) == left


def test_a_compounding_budget_is_solved_for_its_own_average():
    backbone = find_backbone("qwen2_5_vl").with_patches(1280)
    for stages in ((1, 2), (2,)):
        budget = Budget.solve(640, backbone, stages, ratio_base="compounding")
        assert budget.ratio_base == "compounding"
        assert budget.average(backbone) == pytest.approx(640, abs=1)


def test_unknown_base_of_the_ratios():
    with pytest.raises(UserError, match="ratio_base is 'current'; choose entered, compounding"):
        Budget(layers=(2,), ratios=(0.5,), ratio_base="current")


def test_plans_on_pictures_of_any_size_are_cut_to_the_picture():
    budget, backbone = Budget(170, 35, layers=(14, 21), ratios=(0.5, 0.0)), find_backbone("qwen2_5_vl")
    assert budget.entered(backbone) == 205
    assert budget.counts(backbone.with_patches(100)) == (99, 1)
    assert budget.tokens_per_layer(backbone.with_patches(100, pictures=2))[::7] == (200, 200, 100, 0)
    with pytest.raises(UserError, match="the picture has 100"):
        budget.entered(find_backbone("llava15").with_patches(100))


@pytest.mark.parametrize("media", [[(1, 1, 3)], [(1, 2, 4), (1, 2, 4)], [(3, 2, 2)]])
@pytest.mark.parametrize("ratio_base", ["entered", "compounding"])
@torch.no_grad()
def test_the_plan_is_what_the_engine_keeps(media, ratio_base):
    """Small pictures, several, and the temporal patches of a video, which are counted one by one."""
    model = tiny_qwen()
    budget = replace(BUDGET, ratio_base=ratio_base)
    duet.attach(model, "duet", budget)
    row = make_row(*media)
    with duet.record(model) as trace:
        model(**collate([row]))
    units = sum(frames for frames, _, _ in media)
    backbone = Backbone.from_config(model.config).with_patches(media[0][1] * media[0][2], units)
    assert trace.entered == [budget.entered(backbone)]
    text = len(row.ids) - backbone.full
    # a boundary at which nothing goes is not noted
    seen = [trace.lengths[max(b for b in trace.lengths if b <= layer)][0] - text for layer in range(LAYERS)]
    assert seen == list(budget.tokens_per_layer(backbone))
    counts = budget.counts(backbone)
    assert counts is not None
    assert {unit.kept.shape[1] for unit in trace.reductions[0]} == {sum(counts)}
