"""Shapes of an exact budget, and the loss that curves foretell."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from duet.budget import DUET, PYRAMID, Budget, find_backbone
from duet.budget.schedules import PLAIN
from duet.errors import UserError
from duet.schedule.candidates import Candidate, Model, candidates, distinct, shapes
from duet.schedule.curves import ALL_TOKENS, BLIND, FEW_TOKENS, Curves

MINI = find_backbone("mini")


def model_of(density: list[float]) -> Model:
    """g falls linearly in log n from 1 at one token to 0 at 100."""
    return Model(np.array(density), ((0.0, 1.0), (math.log(100), 0.0)), {1: 0.4, 7: 0.0}, {1: 0.1, 4: 0.5})


def g(count: int) -> float:
    return 1 - math.log(count) / math.log(100) if count else 1.0


def test_the_formula_by_hand():
    model = model_of([0.5, 0.25, 0.25, 0, 0, 0, 0, 0])
    budget = Budget(40, layers=(2,), ratios=(0.0,))
    assert model.loss(budget, budget.tokens_per_layer(MINI)) == pytest.approx(0.75 * g(40) + 0.25)
    frozen = Budget(40, frozen=4)
    assert model.loss(frozen, frozen.tokens_per_layer(MINI)) == pytest.approx(g(40) + 0.2)
    late = Budget(40, layers=(3,), ratios=(0.5,), entry=2)
    wanted = 1.0 * g(40) + 0.1 + 0.4 / 3
    assert model.loss(late, late.tokens_per_layer(MINI)) == pytest.approx(wanted)


def test_a_model_that_reads_early_gets_its_tokens_early():
    early = candidates(model_of([0.6, 0.4, 0, 0, 0, 0, 0, 0]), 11.111, MINI, DUET, "duet", [])
    assert early[0].layers[2:] == (0,) * 6 and early[0].budget.average(MINI) == pytest.approx(11.111, abs=0.5)
    even = candidates(model_of([0.125] * 8), 11.111, MINI, DUET, "duet", [])
    assert min(even[0].layers) > 0 and max(even[0].layers) - min(even[0].layers) <= 6


def test_all_candidates_have_the_average():
    every = candidates(model_of([0.125] * 8), 22.222, MINI, DUET, "duet", [1, 2])
    assert all(abs(one.budget.average(MINI) - 22.222) <= 0.5 for one in every)
    assert any(one.budget.entry for one in every) and not any(one.budget.frozen for one in every)
    losses = [one.foretold for one in every]
    assert losses == sorted(losses)


def test_freezing_is_considered_where_it_saves_something():
    every = candidates(model_of([0.125] * 8), 22.222, MINI, DUET, "duet", [], measure="flops")
    frozen = [one for one in every if one.budget.frozen is not None]
    assert frozen and all(abs(one.budget.average(MINI, "flops") - 22.222) <= 0.5 for one in frozen)


def test_an_absence_takes_the_place_of_reading():
    model = replace(model_of([0.5, 0.25, 0.125, 0.125, 0, 0, 0, 0]), away={1: 0.3, 2: 0.02, 3: 0.01, 4: 0.2})
    budget = Budget(40, layers=(1, 5), ratios=(0.5, 0.0), away=(2, 3))
    wanted = 0.5 * g(40) + 0.25 * g(20) + 0.02 + 0.01
    assert model.loss(budget, budget.tokens_per_layer(MINI)) == pytest.approx(wanted)
    assert model.gaps() == [(3, 4), (2, 4), (2, 3), (2, 5)]
    every = candidates(model, 11.111, MINI, DUET, "duet", [1])
    gone = [one for one in every if one.budget.away]
    assert gone and all(one.layers[layer] == 0 for one in gone for layer in one.budget.away)
    assert all(one.layers[one.budget.away[-1] + 1] > 0 and not one.budget.entry for one in gone)
    assert any(3 in one.budget.layers and one.budget.away == (2,) for one in gone)
    assert not any(
        layer - 1 in one.budget.away
        for one in candidates(model, 11.111, MINI, DUET, "duet", [], ranks_before=True)
        for layer in one.budget.layers
    )


def test_up_to_three_drops_are_considered():
    every = candidates(model_of([0.6, 0.2, 0.05, 0.05, 0.05, 0.05, 0, 0]), 22.222, MINI, DUET, "duet", [])
    assert max(len(one.budget.layers) for one in every) == 3
    assert all(one.budget.ratios[-1] == 0 for one in every if len(one.budget.layers) == 3)


def test_a_method_without_stage_2_only_leaves():
    every = candidates(model_of([0.125] * 8), 22.222, MINI, PLAIN, "scope", [1])
    assert every and not any(one.budget.ranks for one in every)


def test_a_method_without_stage_1_drops_first():
    every = candidates(model_of([0.125] * 8), 33.333, MINI, PYRAMID, "pyramiddrop", [])
    assert every and all(one.layers[0] == 100 and one.budget.stage1 is None for one in every)


def test_no_shape_leaves_a_model_that_reads_late():
    assert any(shape.ratios[-1:] == (0.0,) for shape in shapes(8, [], True, False, late=False))
    assert not any(shape.ratios[-1:] == (0.0,) for shape in shapes(8, [], True, False, late=True))


def test_an_average_out_of_reach():
    with pytest.raises(UserError, match=r"no shape has an average of 2 tokens with method pyramiddrop"):
        candidates(model_of([0.125] * 8), 2.0, MINI, PYRAMID, "pyramiddrop", [])


def test_candidates_that_hardly_differ_are_one():
    def made(count: int, layers: tuple[int, ...], frozen: int | None = None) -> Candidate:
        return Candidate(DUET, Budget(count, frozen=frozen), 0.0, layers)

    some = [made(40, (40, 40, 0)), made(41, (41, 39, 0)), made(20, (20, 20, 40)), made(40, (40, 40, 0), frozen=2)]
    assert distinct(some, 5) == [some[0], some[2], some[3]]
    assert distinct(some, 1) == some[:1]


def test_curves_become_a_density():
    """Noise in the withdrawal is taken out from the end; what freezing adds is beyond the same few tokens."""
    row = {
        BLIND: 2.0,
        ("flat", FEW_TOKENS, 0): 0.4,
        **{("withdrawn", ALL_TOKENS, layer): loss for layer, loss in ((1, 1.0), (2, 0.2), (3, 0.3))},
        **{("frozen", FEW_TOKENS, layer): 0.6 for layer in (1, 2, 3)},
        **{("entering", FEW_TOKENS, layer): 0.2 for layer in (1, 2)},
        **{("away", ALL_TOKENS, layer): loss for layer, loss in ((1, 0.9), (2, 0.3))},
    }
    curves = Curves(("all",), {"all": 2.0}, {"all": [row, row]}, 4, 1.0)
    model = Model.of(curves, {10: 0.5, 20: 0.2}, 100)
    assert model.density.tolist() == pytest.approx([0.5, 0.35, 0.0, 0.15])
    assert model.frozen == pytest.approx({1: 0.1, 2: 0.1, 3: 0.1})
    assert model.entering == {1: 0.0, 2: 0.0}
    assert model.away == pytest.approx({1: 0.45, 2: 0.15})
    assert [loss for _, loss in model.counts] == pytest.approx([1.0, 0.5, 0.2, 0.0])
