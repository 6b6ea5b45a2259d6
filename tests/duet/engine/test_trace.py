"""What `duet.record` promises (`docs/trace.md`), for every family."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import duet
from duet.budget import Budget
from tests.families import Family

PAGE = Path(__file__).parents[3] / "docs" / "trace.md"


def traced(model: Any, family: Family) -> Any:
    with torch.no_grad(), duet.record(model) as trace:
        model(**family.collate(family.prompts))
    return trace


@pytest.mark.parametrize("method", ["duet", "visionzip", "duet_c"])
@pytest.mark.parametrize("positions", ["keep", "renumber"])
def test_each_reduced_token_enters_once(family, method, positions):
    trace = traced(family.attach(family.build(), method, positions=positions), family)
    for row, units in enumerate(trace.reductions):
        made = [(unit, token) for unit, one in enumerate(units) for token in range(one.features.shape[1])]
        assert sorted(map(tuple, trace.origins[row].tolist())) == made
        assert len(made) == trace.entered[row] <= trace.full[row]
        for one in units:
            patches = [patch for patch in one.kept[0].tolist() if patch >= 0]
            assert len(set(patches)) == len(patches)
            own = [token for token, patch in enumerate(one.kept[0].tolist()) if patch >= 0]
            assert one.assign[0, patches].tolist() == own
            dominant = patches[: len(patches) - one.contextual]
            assert dominant == sorted(dominant)


def test_without_stage_1_tokens_are_patches(family):
    trace = traced(family.attach(family.build(), "pyramiddrop"), family)
    assert trace.reductions == [] and trace.entered == trace.full
    for row, count in enumerate(trace.entered):
        assert len(trace.origins[row].unique(dim=0)) == len(trace.origins[row]) == count


@pytest.mark.parametrize("method", ["duet", "pyramiddrop", "pyramiddrop_all"])
@pytest.mark.parametrize("base", ["entered", "compounding"])
def test_the_best_candidates_stay_and_count_on_in_the_next_stage(family, method, base):
    trace = traced(family.attach(family.build(), method, ratio_base=base), family)
    assert [stage.boundary for stage in trace.stages] == [2, 4]
    for row, count in enumerate(trace.entered):
        left = set(range(count))
        for stage in trace.stages:
            kept, candidates = stage.kept[row].tolist(), stage.candidates[row].tolist()
            assert kept == sorted(set(kept)) and candidates == sorted(set(candidates))
            assert set(candidates) <= left if base == "compounding" else set(candidates) == left
            assert left - set(candidates) <= set(kept) <= left
            scores = dict(zip(candidates, stage.scores[row].tolist(), strict=True))
            stay, gone = [scores[one] for one in kept if one in scores], left - set(kept)
            assert not (stay and gone) or min(stay) >= max(scores[one] for one in gone)
            left = set(kept)
        assert trace.counts(row)[4] == len(left)


def test_a_boundary_without_a_loss_is_no_stage(family):
    budget = Budget(dominant=3, layers=(1, 2, 3), ratios=(1.0, 0.5, 0.5))
    trace = traced(duet.attach(family.build(), "duet", budget), family)
    assert [stage.boundary for stage in trace.stages] == [2]


def test_the_page_prints_what_it_says(family, capsys):
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    model = family.attach(family.build())
    longest = max(family.prompts, key=lambda prompt: len(prompt.ids))
    exec(snippet, {"duet": duet, "model": model, "inputs": family.collate([longest])})
    assert capsys.readouterr().out.count("\n") > 3
