"""All reductions of a method in one map: how many layers each patch lasts."""

from __future__ import annotations

import numpy as np

from duet.report.fates import fate
from duet.report.kept import Kept

NONE = np.full(4, -1)


def step(boundary: int, clear: list[int], cluster: list[int] | None = None) -> Kept:
    marks = np.zeros(4, dtype=bool)
    marks[clear] = True
    clusters = NONE if cluster is None else np.array(cluster)
    anchors = np.array([2]) if cluster is not None else np.zeros(0, dtype=int)
    return Kept(boundary, 4, len(clear), False, marks, clusters, anchors)


def test_all_tokens() -> None:
    found = fate([], 4, 8)
    np.testing.assert_allclose(found.lasts, 1)
    assert set(found.level) == {0} and len(found.anchors) == 0


def test_both_stages() -> None:
    """Patch 0 goes after 4 layers, 1 after 6; 2 and 3 are merged and go after 6; nothing is left in the end."""
    steps = [step(0, [0, 1], [-1, -1, 0, 0]), step(4, [1], [-1, -1, 0, 0]), step(6, [])]
    found = fate(steps, 4, 8)
    np.testing.assert_allclose(found.lasts, [0.5, 0.75, 0.75, 0.75])
    assert found.level[0] != found.level[1] and min(found.level[:2]) >= 0
    assert found.level[2:].tolist() == [-1, -1] and found.anchors.tolist() == [2]
    assert found.cluster.tolist() == [-1, -1, 0, 0]


def test_the_second_stage_alone_and_patches_that_are_gone_at_once() -> None:
    np.testing.assert_allclose(fate([step(2, [0, 3])], 4, 8).lasts, [1, 0.25, 0.25, 1])
    found = fate([step(0, [0])], 4, 8)
    np.testing.assert_allclose(found.lasts, [1, 0, 0, 0])
    assert found.level[1:].tolist() == [-1, -1, -1]
