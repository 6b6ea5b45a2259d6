"""Greedy choice, step by step; the methods that use it are held to plain loops in `tests/duet/baselines`."""

from __future__ import annotations

import torch

from duet.ops.greedy import Coverage, Spread, Volume, everyone, greedy, row_of
from duet.ops.similarity import cosines


def arc(*degrees: float) -> torch.Tensor:
    """Directions in the plane: the farther apart, the less alike."""
    angle = torch.tensor(degrees).deg2rad()
    return torch.stack([angle.cos(), angle.sin()], -1)[None] * torch.arange(1.0, len(degrees) + 1)[:, None]


def test_row_of_a_table():
    table = torch.arange(12.0).view(2, 3, 2)
    assert row_of(table, torch.tensor([2, 0])).tolist() == [[4.0, 5.0], [6.0, 7.0]]


def test_coverage_counts_what_is_new_only():
    cover = torch.tensor([[[1.0, 1.0, 0.0, 0.0], [0.0, 0.9, 0.9, 0.0], [0.0, 0.0, 0.0, 0.7], [-5.0, 0.0, 0.0, 0.1]]])
    assert greedy(Coverage(cover.clone()), 4, everyone(cover)).tolist() == [[0, 1, 2, 3]]
    weight = torch.tensor([[1.0, 1.0, 10.0, 1.0]])
    assert greedy(Coverage(cover.clone(), weight), 4, everyone(cover)).tolist() == [[2, 0, 1, 3]]


def test_spread_starts_with_the_loneliest():
    points = arc(0, 9, 40, 81)
    assert greedy(Spread(points), 4, everyone(points)).tolist() == [[3, 0, 2, 1]]


def test_volume_is_the_largest_determinant():
    generator = torch.Generator().manual_seed(0)
    kernel = cosines(torch.randn(2, 8, 5, generator=generator, dtype=torch.float64))
    order = greedy(Volume(kernel, 4), 4, everyone(kernel))
    for matrix, picks in zip(kernel, order.tolist(), strict=True):
        for step in range(4):
            sets = [[*picks[:step], n] for n in range(8) if n not in picks[:step]]
            best = max(sets, key=lambda chosen: float(torch.det(matrix[chosen][:, chosen])))
            assert best[-1] == picks[step]


def test_volume_ends_at_the_rank_and_goes_on_by_the_diagonal():
    length = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    kernel = torch.outer(length, length)[None]
    assert greedy(Volume(kernel, 6), 6, everyone(kernel)).tolist() == [[5, 4, 3, 2, 1, 0]]


def test_only_candidates_are_picked_while_there_are_any():
    points = arc(0, 9, 40, 81).repeat(2, 1, 1)
    candidates = torch.tensor([[True, True, True, False], [False, True, False, False]])
    order = greedy(Spread(points), 3, candidates)
    assert order[0].sort().values.tolist() == [0, 1, 2]
    assert order[1, 0] == 1


def test_no_pick_is_no_column():
    assert greedy(Spread(arc(0, 45)), 0, everyone(arc(0, 45))).shape == (1, 0)


def test_what_is_covered_stays_in_one_buffer():
    cover = torch.rand(2, 5, 7, generator=torch.Generator().manual_seed(0))
    objective = Coverage(cover)
    greedy(objective, 3, everyone(cover))
    assert objective.residual.data_ptr() == cover.data_ptr()


def test_rounding_does_not_choose_between_equal_gains():
    """Tokens 1 and 2 cover each other and nothing else; one of them is a rounding error ahead."""
    for ahead in (1, 2):
        cover = torch.eye(3)
        cover[1, 2] = cover[2, 1] = 0.5
        cover[ahead, ahead] += 1e-6
        assert greedy(Coverage(cover[None].clone()), 3, everyone(cover[None]), exact=False).tolist() == [[1, 0, 2]]
        assert greedy(Coverage(cover[None].clone()), 1, everyone(cover[None])).tolist() == [[ahead]]
