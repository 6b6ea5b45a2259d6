"""Properties that the pure function of every stage-1 reducer must have."""

from __future__ import annotations

from inspect import Parameter, signature
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import plain_reducers
from tests.duet.baselines.inputs import GREEDY, NAMES, drawn, method, rows, select

every = pytest.mark.parametrize("name", NAMES)
seeds = st.integers(0, 2**20)


def is_a_choice(kept, keep, tokens):
    assert kept.dtype == torch.long and kept.shape[1] == keep
    assert (kept.diff(dim=1) > 0).all() and (kept >= 0).all() and (kept < tokens).all()


@every
def test_arguments_are_named(name):
    parameters = signature(method(name).select).parameters.values()
    assert all(parameter.kind is Parameter.KEYWORD_ONLY for parameter in parameters)


@pytest.mark.parametrize("name", ["scope", "divprune", "cdpruner", "vispruner", "mmtok", "holov", "vscan", "tops"])
@settings(max_examples=12)
@given(seed=seeds, keep=st.integers(1, 20), tokens=st.sampled_from([32, 35]))
def test_equals_the_rule_in_plain_loops(name, seed, keep, tokens):
    inputs = drawn(seed, batch=2, tokens=tokens)
    kept = select(name, keep, inputs)
    plain = getattr(plain_reducers, name)
    asked = [key for key in inputs if key in signature(plain).parameters]
    extra = {"grid": (5, 7) if tokens == 35 else (4, 8)} if name == "vscan" else {}
    # beyond the rank of the kernel there is no volume, and the released rule says nothing
    if name == "cdpruner" and keep > 9:
        return
    for number in range(2):
        expected = plain(keep, **{key: inputs[key][number] for key in asked}, **extra)
        assert kept[number].tolist() == sorted(expected)


@every
@settings(max_examples=20)
@given(seed=seeds, keep=st.integers(1, 24))
def test_a_row_alone_equals_the_row_in_a_batch(name, seed, keep):
    inputs = drawn(seed, dtype=torch.float32)
    together = select(name, keep, inputs)
    is_a_choice(together, keep, 24)
    for number in range(3):
        assert select(name, keep, rows(inputs, [number])).tolist() == together[number : number + 1].tolist()


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_all_tokens_may_stay_and_only_one(name, dtype):
    inputs = drawn(dtype=dtype)
    assert select(name, 24, inputs).tolist() == [list(range(24))] * 3
    is_a_choice(select(name, 1, inputs), 1, 24)


@every
@settings(max_examples=20)
@given(seed=seeds, keep=st.integers(1, 20))
def test_precision_does_not_decide(name, seed, keep):
    inputs = drawn(seed, dtype=torch.float32)
    wide = {key: value.double() for key, value in inputs.items()}
    assert select(name, keep, inputs).tolist() == select(name, keep, wide).tolist()


@every
@pytest.mark.parametrize("keep", [1, 7, 20, 24])
def test_pictures_without_content(name, keep):
    """One colour, all zeros, and duplicates: still a valid choice, without nan."""
    inputs = drawn(dtype=torch.float32)
    for key in ("features", "projected", "clip_image_embeds"):
        inputs[key][0] = inputs[key][0, :1]
        inputs[key][1] = 0
        inputs[key][2, 12:] = inputs[key][2, :12]
    inputs["text_tokens"][1] = 0
    inputs["clip_text_embeds"][1] = 0
    together = select(name, keep, inputs)
    is_a_choice(together, keep, 24)
    for number in range(3):
        assert select(name, keep, rows(inputs, [number])).tolist() == together[number : number + 1].tolist()


@pytest.mark.parametrize("name", ["scope", "divprune", "vispruner", "vscan", "tops", "mmtok"])
def test_ties_go_to_the_first(name):
    """Tokens at right angles to each other, and attention that is the same everywhere."""
    inputs = drawn(batch=1, tokens=16)
    inputs["features"] = inputs["projected"] = torch.eye(16, dtype=torch.float64)[None]
    inputs["text_tokens"] = inputs["projected"][:, :0]
    for key in ("cls_attention", "cls_attention_shallow"):
        inputs[key] = torch.full((1, 16), 0.05, dtype=torch.float64)
    options = {"important_ratio": 1.0} if name == "vispruner" else {}
    assert select(name, 5, inputs, **options).tolist() == [[0, 1, 2, 3, 4]]


@pytest.mark.parametrize("name", GREEDY)
@settings(max_examples=10)
@given(seed=seeds)
def test_fewer_picks_are_the_first_of_more(name, seed):
    inputs = drawn(seed)
    chosen = [set(select(name, keep, inputs)[0].tolist()) for keep in range(1, 13)]
    assert all(few < many for few, many in pairwise(chosen))
