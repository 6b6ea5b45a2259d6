"""Anchors, assignment and merging: against loops over clusters."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from duet.ops.merge import nearest_anchor, spaced
from tests.drawing import normals


@given(st.integers(1, 20).flatmap(lambda length: st.tuples(st.just(length), st.integers(1, length))), st.integers(1, 3))
def test_spaced_takes_every_step_th(sizes, batch):
    length, count = sizes
    order = torch.stack([torch.randperm(length) for _ in range(batch)])
    anchors, members = spaced(order, count)
    step = length // count
    for b, row in enumerate(order.tolist()):
        places = [number * step for number in range(count)]
        assert anchors[b].tolist() == [row[place] for place in places]
        assert members[b].tolist() == [patch for place, patch in enumerate(row) if place not in places]


@st.composite
def clusters(draw, least_members=0):
    """Features and keys `[B, N, D]`, and a split of some patches in anchors and members."""
    features = draw(normals((1, 3), (2, 9), (1, 3)))
    batch, patches, _ = features.shape
    anchors = draw(st.integers(1, patches - least_members))
    used = draw(st.integers(anchors + least_members, patches))
    order = torch.stack([torch.tensor(draw(st.permutations(range(patches)))) for _ in range(batch)])
    return features, order[:, :anchors], order[:, anchors:used]


@given(clusters(), normals(3, 9, 4))
def test_nearest_anchor_has_the_largest_cosine(case, keys):
    features, anchors, members = case
    keys = keys[: len(features), : features.shape[1]]
    cluster = nearest_anchor(keys, anchors, members)
    assert cluster.shape == members.shape
    for b in range(len(keys)):
        for place, member in enumerate(members[b].tolist()):
            cosines = [torch.cosine_similarity(keys[b, member], keys[b, anchor], dim=0) for anchor in anchors[b]]
            assert cosines[cluster[b, place]] >= max(cosines) - 1e-12


def test_nearest_anchor_gives_ties_to_the_first():
    keys = torch.ones(1, 4, 2, dtype=torch.float64)
    assert nearest_anchor(keys, torch.tensor([[2, 0]]), torch.tensor([[1, 3]])).tolist() == [[0, 0]]
