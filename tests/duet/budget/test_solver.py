"""solve: averages within the stated tolerance, the paper's rows from their targets, and refusals."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duet.budget import BACKBONES, Budget, find_backbone
from duet.errors import UserError

FIXED = sorted(name for name in BACKBONES if BACKBONES[name].patches is not None)


@pytest.mark.parametrize(("average", "dominant", "contextual"), [(192, 300, 7), (128, 170, 35), (64, 72, 30)])
def test_both_stages_give_paper_table_12(average, dominant, contextual):
    expected = Budget(dominant, contextual, layers=(16, 24), ratios=(0.5, 0.0))
    assert Budget.solve(average=average, backbone="llava15") == expected


@pytest.mark.parametrize(("average", "dominant", "contextual"), [(192, 162, 30), (128, 108, 20), (64, 54, 10)])
def test_stage_1_alone_gives_the_splits_of_visionzip(average, dominant, contextual):
    assert Budget.solve(average=average, stages=(1,)) == Budget(dominant, contextual)


@pytest.mark.parametrize(("average", "x"), [(192, 0.56), (128, 0.42), (64, 0.19)])
def test_stage_2_alone_gives_the_recipe_of_pyramiddrop(average, x):
    budget = Budget.solve(average=average, stages=(2,))
    assert budget.layers == (2, 8, 16)
    assert budget.ratios == pytest.approx((x, x**2, x**3), abs=0.005)
    assert budget.stage1 is None


@settings(deadline=None)
@given(st.sampled_from(FIXED), st.floats(0.02, 0.6))
def test_stage_1_is_solved_within_half_a_token_per_picture(name, share):
    backbone = find_backbone(name)
    target = share * backbone.pictures * backbone.known_patches
    for stages, slack in (((1,), 0), ((1, 2), 0.5)):
        budget = Budget.solve(average=target, backbone=backbone, stages=stages)
        # Half of what a token per picture makes, and a truncated stage-2 count.
        assert abs(budget.average(backbone) - target) <= backbone.pictures / 2 + slack


@settings(deadline=None)
@given(st.sampled_from(FIXED), st.floats(0.14, 0.98))
def test_stage_2_is_solved_within_half_a_token_per_layer(name, share):
    backbone = find_backbone(name)
    target = share * backbone.full
    average = Budget.solve(average=target, backbone=backbone, stages=(2,)).average(backbone)
    # Behind each of three layers a count moves in whole tokens; one step of x moves 2056 tokens by less than one.
    assert abs(average - target) <= 0.5 + backbone.full * 70 / 32 / 10_000 / 2


@settings(deadline=None)
@given(st.floats(40, 340), st.floats(40, 340), st.sampled_from([(1, 2), (1,), (2,)]))
def test_a_higher_target_never_gives_fewer_tokens(first, second, stages):
    low, high = sorted((first, second))
    averages = [Budget.solve(average=target, stages=stages).average("llava15") for target in (low, high)]
    assert averages[0] <= averages[1]


@settings(deadline=None)
@given(st.floats(20, 340))
def test_no_neighbouring_count_comes_closer(target):
    budget = Budget.solve(average=target)
    assert budget.dominant is not None and budget.contextual is not None
    reached = abs(budget.average("llava15") - target)
    for step in (-1, 1):
        other = Budget(budget.dominant + step, budget.contextual, layers=budget.layers, ratios=budget.ratios)
        assert reached <= abs(other.average("llava15") - target)


def test_given_schedules_and_shares_are_used():
    fastv = Budget.solve(average=192, stages=(2,), layers=(2,))
    assert fastv.layers == (2,)
    assert int(576 * fastv.ratios[0]) == 166  # (2 x 576 + 30 x 166) / 32 = 191.6
    budget = Budget.solve(average=300, contextual_share=0.25, layers=(8,), ratios=(0.5,), cluster_width=2)
    assert (budget.layers, budget.ratios, budget.cluster_width) == ((8,), (0.5,), 2)
    assert budget.contextual == pytest.approx((budget.dominant + budget.contextual) / 4, abs=0.5)
    assert Budget.solve(average=300, contextual_share=0, stages=(1,)) == Budget(300, 0)


def test_the_size_of_a_picture_is_asked_for_only_where_it_matters():
    budget = Budget.solve(average=640, backbone="qwen2_5_vl")
    assert budget == Budget(792, 139, layers=(14, 21), ratios=(0.5, 0.25))
    assert Budget.solve(average=640, backbone="qwen2_5_vl", stages=(1,)).entered("qwen2_5_vl") == 640
    with pytest.raises(UserError, match="with_patches"):
        Budget.solve(average=640, backbone="qwen2_5_vl", stages=(2,))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"average": 500}, r"500 visual tokens .* llava15 with stages 1 and 2: from 0.5 to 360.5"),
        ({"average": 600, "stages": (1,)}, "from 1 to 577"),
        ({"average": 20, "stages": (2,)}, "from 36 to 576 is possible, because the first drop is after layer 2 of 32"),
        (
            {"average": 80, "backbone": "mini"},
            r"on mini .* to 63 is possible, even if stage 1 keeps all 100, because the schedule of stage 2 is fixed "
            r"\(0\.5 after layer 4, 0 after layer 6 of 8\); take a method with one stage",
        ),
        ({"average": 100 / 9, "stages": (2,), "backbone": "mini"}, "from 12.5 to 100"),
        ({"average": 0}, "positive"),
        ({"average": float("nan")}, "positive"),
        ({"average": 100, "stages": (2, 1)}, "do not exist"),
        ({"average": 100, "stages": (1,), "layers": (3,)}, "do nothing without stage 2"),
        ({"average": 100, "stages": (2,), "ratios": (0.1,)}, "solved for"),
        ({"average": 100, "stages": (2,), "contextual_share": 0.1}, "does nothing without stage 1"),
        ({"average": 100, "contextual_share": 1.0}, "contextual_share is 1.0"),
        ({"average": 100, "backbone": "llava1.5"}, "did you mean llava15"),
    ],
)
def test_what_cannot_be_solved_says_why(arguments, message):
    with pytest.raises(UserError, match=message):
        Budget.solve(**arguments)
