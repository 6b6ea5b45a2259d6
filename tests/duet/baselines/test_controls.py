"""Controls: random, uniform, pool; and the ranks random_rank and inverted."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import avg_pool2d

import duet
from duet.baselines import pool, random, uniform
from duet.budget import Budget, Stage1
from duet.errors import UserError
from duet.ops.mixing import mix
from duet.types import VisionStates
from tests.tiny_llava import collate, make_row, tiny_llava


def pictures(count: int = 40, tokens: int = 144, width: int = 64) -> torch.Tensor:
    """Smooth pictures with a large common mean, as a tower's features have."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(count, width, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(12, 12), mode="bilinear").flatten(2).transpose(1, 2)
    return (
        smooth
        + 2 * torch.randn(width, generator=generator)
        + 0.3 * torch.randn(count, tokens, width, generator=generator)
    )


def test_random_patches_depend_on_neither_the_batch_nor_rounding():
    features = pictures()
    kept = random.select(keep=20, features=features)
    shuffled = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    assert random.select(keep=20, features=features[shuffled]).tolist() == kept[shuffled].tolist()
    noise = 1 + 1e-6 * torch.randn(features.shape, generator=torch.Generator().manual_seed(2))
    assert random.select(keep=20, features=features * noise).tolist() == kept.tolist()
    half = random.select(keep=20, features=features.bfloat16())
    assert (half == kept).all(1).sum() >= 38


def test_random_differs_between_pictures_and_between_seeds():
    features = pictures()
    kept = random.select(keep=20, features=features)
    assert len({tuple(row) for row in kept.tolist()}) > 30
    assert (random.select(keep=20, features=features, seed=1) != kept).any(1).all()


def test_random_prefers_no_patch():
    features = pictures(count=1).expand(3000, -1, -1)[:, :, :2].contiguous()
    drawn = mix(mix(torch.arange(3000))[:, None] + torch.arange(144))
    kept = drawn.argsort(-1)[:, :36]
    share = torch.bincount(kept.flatten(), minlength=144) / 3000
    assert (share - 0.25).abs().max() < 0.04
    assert random.select(keep=36, features=features).unique(dim=0).shape == (1, 36)


def test_random_of_a_picture_of_one_colour():
    flat = torch.full((2, 144, 64), 0.7)
    assert random.picture_seeds(flat).tolist() == [0, 0]
    assert random.picture_seeds(torch.zeros(2, 144, 64)).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("grid", "keep", "expected"),
    [
        ((4, 4), 4, [0, 2, 8, 10]),
        ((4, 4), 1, [5]),
        ((1, 6), 3, [0, 2, 4]),
        ((3, 3), 9, list(range(9))),
        ((2, 2, 2), 2, [0, 4]),
    ],
)
def test_uniform_keeps_the_middles_of_cells(grid, keep, expected):
    features = torch.zeros(2, torch.Size(grid).numel(), 3)
    assert uniform.select(keep=keep, features=features, grid=grid).tolist() == [expected] * 2


def test_pooled_tokens_stand_where_uniform_keeps():
    features = torch.zeros(2, 350, 3)
    for keep in (1, 39, 117, 350):
        kept = pool.select(keep=keep, features=features, grid=(14, 25))
        assert kept.tolist() == uniform.select(keep=keep, features=features, grid=(14, 25)).tolist()
        assert pool.cells(350, keep, (14, 25))[kept[0]].tolist() == list(range(keep))


def test_pooling_that_divides_the_grid_is_average_pooling():
    cells = pool.cells(576, 64, (24, 24)).view(24, 24)
    assert cells.tolist() == [[row // 3 * 8 + column // 3 for column in range(24)] for row in range(24)]


def test_pool_is_average_pooling_of_what_the_tower_gives():
    features = torch.randn(2, 576, 5, generator=torch.Generator().manual_seed(0))
    edit = pool.Pool()(VisionStates(features, grid=(1, 24, 24)), Stage1(64))
    pooled = avg_pool2d(features.transpose(1, 2).unflatten(2, (24, 24)), 3).flatten(2).transpose(1, 2)
    torch.testing.assert_close(edit.apply(features), pooled)
    assert not edit.projected
    uneven = pool.Pool()(VisionStates(features[:, :35], grid=(1, 5, 7)), Stage1(4))
    cell = pool.cells(35, 4, (5, 7))
    means = torch.stack([features[:, :35][:, cell == number].mean(1) for number in range(4)], 1)
    torch.testing.assert_close(uneven.apply(features[:, :35]), means)


def kept_of(method, rows, **options):
    model = duet.attach(tiny_llava(), method, Budget(layers=(2, 4), ratios=(0.5, 0.25)), **options)
    with torch.no_grad(), duet.record(model) as trace:
        model(**collate(rows))
    return [stage.kept for stage in trace.stages], trace


def test_the_inverted_rank_keeps_what_pyramiddrop_drops():
    rows = [make_row(1, 6, seed=0), make_row(1, 9, seed=1)]
    (first, *_), _ = kept_of("inverted", rows)
    (other, *_), trace = kept_of("pyramiddrop", rows)
    for least, most, seen in zip(first, other, trace.stages[0].candidates, strict=True):
        assert sorted(least.tolist() + most.tolist()) == seen.tolist()


def test_a_random_rank_depends_on_place_and_drop_only():
    rows = [make_row(1, 6, seed=0), make_row(1, 9, seed=1)]
    (first, second), _ = kept_of("random_rank", rows)
    alone, _ = kept_of("random_rank", rows[1:])
    assert first[0].tolist() == first[1].tolist() == alone[0][0].tolist()
    assert second[1].tolist() == alone[1][0].tolist()
    (other, _), _ = kept_of("random_rank", rows, seed=1)
    assert other[0].tolist() != first[0].tolist()
    with pytest.raises(UserError, match="seed is -1"):
        kept_of("random_rank", rows, seed=-1)
