"""Stage1 and Budget: tokens per layer against a slow loop, averages of the paper, and refusals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duet.budget import Budget, Stage1, find_backbone
from duet.errors import UserError


def slow_tokens_per_layer(entered: int, layers: tuple[int, ...], ratios: tuple[float, ...], depth: int) -> list[int]:
    current, counts = entered, []
    for layer in range(depth):
        for place, ratio in zip(layers, ratios, strict=True):
            if place == layer:
                current = int(entered * ratio)
        counts.append(current)
    return counts


@st.composite
def schedules(draw: st.DrawFn, depth: int = 32) -> tuple[tuple[int, ...], tuple[float, ...]]:
    layers = sorted(draw(st.sets(st.integers(1, depth - 1), max_size=5)))
    ratios = sorted(draw(st.lists(st.floats(0, 1), min_size=len(layers), max_size=len(layers))), reverse=True)
    return tuple(layers), tuple(ratios)


@given(schedules(), st.integers(1, 400), st.integers(0, 177))
def test_tokens_per_layer_equal_the_slow_loop(schedule, dominant, contextual):
    layers, ratios = schedule
    budget = Budget(dominant, contextual, layers=layers, ratios=ratios)
    expected = slow_tokens_per_layer(dominant + contextual, layers, ratios, 32)
    assert list(budget.tokens_per_layer("llava15")) == expected
    assert budget.average("llava15") == pytest.approx(sum(expected) / 32)


@given(schedules(), st.integers(1, 5000))
def test_keep_counts_never_rise(schedule, entered):
    counts = Budget(layers=schedule[0], ratios=schedule[1]).keep_counts(entered)
    assert list(counts) == sorted(counts, reverse=True)
    assert all(0 <= count <= entered for count in counts)


def test_no_budget_leaves_all_tokens():
    assert set(Budget().tokens_per_layer("llava15")) == {576}
    assert Budget().average("llavanext") == 2880
    assert Budget().average("videollava") == 8 * 257
    assert Budget().stage1 is None


def test_counts_are_of_what_entered_not_of_what_is_left():
    assert Budget(layers=(8, 16, 24), ratios=(0.5, 0.25, 0.125)).keep_counts(576) == (288, 144, 72)
    assert Budget(layers=(16, 24), ratios=(0.5, 0.5)).keep_counts(205) == (102, 102)


def test_only_keeps_one_stage():
    budget = Budget(170, 35, 2, (16, 24), (0.5, 0.0))
    assert budget.only(1) == Budget(170, 35, 2)
    assert budget.only(2) == Budget(layers=(16, 24), ratios=(0.5, 0.0))
    with pytest.raises(UserError, match="stage 3"):
        budget.only(3)


def test_lists_of_a_configuration_file_make_an_equal_and_hashable_budget():
    budget = Budget(30, 6, layers=[4, 6], ratios=[0.5, 0])
    assert budget == Budget(30, 6, layers=(4, 6), ratios=(0.5, 0.0))
    assert len({budget, Budget(30, 6, layers=(4, 6), ratios=(0.5, 0.0))}) == 1


@pytest.mark.parametrize(
    ("shares", "depth", "layers"),
    [((0.5, 0.75), 32, (16, 24)), ((0.5, 0.75), 28, (14, 21)), ((2 / 32, 8 / 32, 0.5), 8, (1, 2, 4))],
)
def test_shares_of_the_depth(shares, depth, layers):
    assert Budget(layers=shares, ratios=(0.1,) * len(shares)).layers_for(depth) == layers


def test_shares_that_meet_on_one_layer_are_refused():
    with pytest.raises(UserError, match=r"fall on layers \(1, 1\) of 4"):
        Budget(layers=(0.1, 0.2), ratios=(0.5, 0.0)).layers_for(4)


@pytest.mark.parametrize(
    ("stage1", "tokens", "cls", "counts"),
    [
        (Stage1(170, 35), 576, True, (170, 35)),
        (Stage1(542, 35), 576, True, (542, 35)),
        (Stage1(1), 1, False, (1, 0)),
        (Stage1(0.65, 0.05), 1023, False, (664, 51)),
        (Stage1(0.001, 0.001), 100, True, (1, 1)),
        (Stage1(0.5, 0.0), 101, True, (50, 0)),
    ],
)
def test_resolve(stage1, tokens, cls, counts):
    assert stage1.resolve(tokens, cls) == counts


@given(st.integers(1, 600), st.integers(0, 600), st.booleans())
def test_resolve_never_gives_more_than_there_is(dominant, contextual, cls):
    if dominant + contextual <= 576 + cls:
        assert Stage1(dominant, contextual).resolve(576, cls) == (dominant, contextual)
    else:
        with pytest.raises(UserError, match=f"asked for {dominant + contextual} tokens .* the picture has 576"):
            Stage1(dominant, contextual).resolve(576, cls)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dominant": 0}, "dominant is 0; it must be at least 1"),
        ({"dominant": -3}, "dominant is -3"),
        ({"dominant": 1.5}, r"dominant is 1.5; give a count \(int\) or a share"),
        ({"dominant": 0.0}, "dominant is 0.0"),
        ({"dominant": True}, "dominant is True"),
        ({"dominant": "170"}, "dominant is '170'"),
        ({"dominant": float("nan")}, "dominant is nan"),
        ({"dominant": 10, "contextual": -1}, "contextual is -1"),
        ({"dominant": 10, "cluster_width": 0}, "cluster_width is 0"),
        ({"contextual": 5}, "contextual=5 needs `dominant`"),
        ({"layers": (16,)}, "1 layers .* 0 ratios"),
        ({"layers": (16, 16), "ratios": (0.5, 0.2)}, "must ascend"),
        ({"layers": (24, 16), "ratios": (0.5, 0.2)}, "must ascend"),
        ({"layers": (0,), "ratios": (0.5,)}, "layer 0"),
        ({"layers": (1.0,), "ratios": (0.5,)}, "layer 1.0"),
        ({"layers": (0.5, 24), "ratios": (0.5, 0.2)}, "all as counts"),
        ({"layers": (16,), "ratios": (1.1,)}, "ratio 1.1"),
        ({"layers": (16,), "ratios": (-0.1,)}, "ratio -0.1"),
        ({"layers": (8, 16), "ratios": (0.2, 0.5)}, "must not rise"),
    ],
)
def test_values_out_of_range_are_refused_by_name(fields, message):
    with pytest.raises(UserError, match=message):
        Budget(**fields)


def test_a_layer_after_the_last_one_is_refused_if_the_depth_is_known():
    budget = Budget(layers=(24, 32), ratios=(0.5, 0.0))
    assert budget.layers_for(40) == (24, 32)
    with pytest.raises(UserError, match="has 32 layers, so tokens can be dropped after layer 31 at the latest"):
        budget.tokens_per_layer("llava15")


def test_counts_fit_any_picture_of_unknown_size_but_shares_do_not():
    assert Budget(870, 153).entered("qwen2_5_vl") == 1023
    with pytest.raises(UserError, match="depends on the picture's resolution"):
        Budget(0.65, 0.05).entered("qwen2_5_vl")
    assert Budget(0.65, 0.05).entered(find_backbone("qwen2_5_vl").with_patches(1000)) == 700
