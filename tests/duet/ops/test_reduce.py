"""The frame of stage 1: output order, and which slot every patch went into."""

from __future__ import annotations

import pytest
import torch

from duet.budget import Stage1
from duet.ops.media import apply_edit
from duet.ops.reduce import assemble, check_score, split_dominant
from duet.types import VisionStates


def states(cls: bool = True) -> VisionStates:
    features = torch.arange(6.0)[None, :, None].repeat(2, 1, 2)
    return VisionStates(features, torch.full((2, 2), -1.0) if cls else None)


SCORES = torch.tensor([[0.0, 5.0, 1.0, 4.0, 2.0, 3.0], [1.0] * 6])


def test_dominant_counts_cls_where_there_is_one():
    split = split_dominant(states(), SCORES, Stage1(3, 2))
    assert split.dominant.tolist() == [[1, 3], [0, 1]]
    assert split.rest.tolist() == [[0, 2, 4, 5], [2, 3, 4, 5]]
    assert split.contextual == 2
    assert split_dominant(states(cls=False), SCORES, Stage1(3, 2)).dominant.tolist() == [[1, 3, 5], [0, 1, 2]]


def test_cls_alone_may_be_dominant():
    reduction = apply_edit(states(), assemble(states(), split_dominant(states(), SCORES, Stage1(1))))
    assert reduction.kept.tolist() == [[-1], [-1]]
    assert reduction.features.tolist() == [[[-1.0, -1.0]]] * 2
    assert (reduction.assign == -1).all()


def test_output_is_cls_dominant_contextual():
    split = split_dominant(states(), SCORES, Stage1(3, 2))
    anchors, members = torch.tensor([[5, 0], [2, 4]]), torch.tensor([[4], [5]])
    reduction = apply_edit(states(), assemble(states(), split, anchors, members, torch.tensor([[1], [0]])))
    assert reduction.kept.tolist() == [[-1, 1, 3, 5, 0], [-1, 0, 1, 2, 4]]
    assert reduction.features[0, :, 0].tolist() == [-1.0, 1.0, 3.0, 5.0, 0.0 + 4.0]
    assert reduction.assign.tolist() == [[4, 1, -1, 2, 4, 3], [1, 2, 3, -1, 4, 3]]


def test_a_patch_of_two_neighbourhoods_is_drawn_in_the_better_one_and_an_anchor_in_its_own():
    split = split_dominant(states(cls=False), SCORES, Stage1(1, 2))
    anchors, members = torch.tensor([[0, 2]] * 2), torch.tensor([[2, 4, 4, 5]] * 2)
    cluster = torch.tensor([[0, 0, 1, 1]] * 2)
    reduction = assemble(states(cls=False), split, anchors, members, cluster)
    assert reduction.assign[0].tolist() == [1, 0, 2, -1, 1, 2]


def test_unknown_score_is_named():
    with pytest.raises(ValueError, match=r"'rows'.*cls_row or column_mean"):
        check_score("rows")
