"""Every cell of `docs/compatibility.md`, and that the document is what the table says."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

from tests.compatibility import features, surroundings
from tests.compatibility.table import DOCUMENT, FAMILIES, FEATURES, METHODS, REFUSED, Feature, document
from tests.compatibility.world import World

CELLS = [
    pytest.param(feature, family, method, id=f"{feature.key}-{family}-{method}")
    for feature in FEATURES
    for family in feature.families
    for method in feature.tried
]


@pytest.mark.parametrize(("feature", "family", "method"), CELLS)
@torch.no_grad()
def test_cell(feature: Feature, family: str, method: str):
    world = World(family, method)
    trial = getattr(features, feature.key, None) or getattr(surroundings, feature.key)
    if feature.verdict != REFUSED:
        trial(world)
        return
    with pytest.raises(ValueError) as refusal:
        trial(world)
    assert feature.sentence in str(refusal.value), str(refusal.value)


def test_every_row_has_a_trial_and_every_trial_a_row():
    body = [
        node for file in (features, surroundings) for node in ast.parse(Path(file.__file__).read_text("utf-8")).body
    ]
    trials = [node.name for node in body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
    assert len(set(trials)) == len(trials)
    assert set(trials) == {feature.key for feature in FEATURES}
    assert len({feature.key for feature in FEATURES}) == len(FEATURES)
    for feature in FEATURES:
        assert bool(feature.sentence) == (feature.verdict == REFUSED)
        assert set(feature.families) <= set(FAMILIES) and set(feature.tried) <= set(METHODS)


def test_the_document_is_what_the_table_says():
    assert DOCUMENT.read_text(encoding="utf-8") == document(), "run python -m tests.compatibility.table"
