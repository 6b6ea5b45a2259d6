"""What the page says of a budget before anything runs is what `duet.budget` says, and what then runs."""

from __future__ import annotations

import pytest

from duet.budget import Backbone, find_backbone
from duet.demo.costs import Prompt, compare
from duet.errors import UserError

LLAVA = Prompt((576,), 64)


def test_the_papers_budget_costs_what_the_paper_says() -> None:
    whole, ours = compare(["duet"], 128, find_backbone("llava15"), LLAVA, 2)
    assert (whole.method, whole.average, ours.method, ours.average) == ("none", 576, "duet", 128)
    # keys and values of 32 layers of 4096 at two bytes
    assert whole.kv_bytes == (576 + 64) * 32 * 2 * 4096 * 2
    assert ours.kv_bytes == (128 + 64) * 32 * 2 * 4096 * 2
    assert ours.layers[0] == 205 and ours.layers[-1] == 0 and len(ours.layers) == 32
    assert 0.3 < ours.flops / whole.flops < 0.5


def test_the_average_is_met_on_tiles_of_different_sizes() -> None:
    costs = compare(["visionzip", "pyramiddrop"], 300, find_backbone("llavanext"), Prompt((576, 300, 300), 40), 2)
    assert all(abs(cost.average - 300) < 2 for cost in costs[1:])


def test_what_cannot_be_had_is_said_beside_the_others() -> None:
    whole, ours, zipped = compare(["duet", "visionzip"], 95, find_backbone("mini"), Prompt((100,), 30), 4)
    assert ours.budget is None and "from" in ours.problem and ours.average == 0
    assert whole.average == 100 and zipped.average == 95


def test_an_unknown_method_is_a_mistake() -> None:
    with pytest.raises(UserError, match="unknown method"):
        compare(["dut"], 30, Backbone.from_config("playground/mini/checkpoints/llava-mini"), Prompt((100,), 30), 4)
