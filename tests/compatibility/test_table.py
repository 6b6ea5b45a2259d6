"""Every cell of `docs/compatibility.md`, and that the document is what the table says."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

from tests.compatibility import features
from tests.compatibility.table import DOCUMENT, FAMILIES, FEATURES, METHODS, REFUSED, Feature, document

CELLS = [
    pytest.param(feature, family, method, id=f"{feature.key}-{family}-{method}")
    for feature in FEATURES
    for family in feature.families
    for method in feature.tried
]


@pytest.mark.parametrize(("feature", "family", "method"), CELLS)
@torch.no_grad()
def test_cell(feature: Feature, family: str, method: str):
    world = features.World(family, method)
    if feature.verdict != REFUSED:
        features.run(feature.key, world)
        return
    with pytest.raises(ValueError) as refusal:
        features.run(feature.key, world)
    assert feature.sentence in str(refusal.value), str(refusal.value)


def test_every_row_has_a_trial_and_every_trial_a_row():
    tree = ast.parse(Path(features.__file__).read_text(encoding="utf-8"))
    trials = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")}
    assert trials - {"run"} == {feature.key for feature in FEATURES}
    assert len({feature.key for feature in FEATURES}) == len(FEATURES)
    for feature in FEATURES:
        assert bool(feature.sentence) == (feature.verdict == REFUSED)
        assert set(feature.families) <= set(FAMILIES) and set(feature.tried) <= set(METHODS)


def test_the_document_is_what_the_table_says():
    assert DOCUMENT.read_text(encoding="utf-8") == document(), "run python -m tests.compatibility.table"
