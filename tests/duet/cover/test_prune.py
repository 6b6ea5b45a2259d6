"""`cover_prune`: coverage inside the language model."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cosine_similarity as cosine

import duet
from duet.budget import Budget
from duet.cover.cover import select
from duet.cover.prune import CoverPrune, clusters, order
from duet.edit import NONE
from duet.errors import UserError
from tests.duet.baselines.inputs import drawn
from tests.families import FAMILIES
from tests.tiny_llava import PATCHES, collate, make_row, tiny_llava
from tests.tiny_parts import check_rows_alone

ROWS = [make_row(pictures, text, seed=seed) for seed, (pictures, text) in enumerate([(1, 6), (2, 3), (0, 4), (1, 5)])]


def test_the_order_is_that_of_stage_1():
    features = drawn(batch=2)["features"]
    real = torch.ones(2, 24, dtype=torch.bool)
    found = order(features, torch.ones(2, 24, dtype=torch.float64), real, 6)
    assert found.tolist() == select(keep=6, features=features).tolist()


def test_padding_neither_covers_nor_asks_to_be_covered():
    features = drawn(batch=1)["features"]
    padded = torch.cat([features[:, :9], 5 * features[:, 9:12]], 1)
    real = (torch.arange(12) < 9)[None]
    alone = order(features[:, :9], torch.ones(1, 9, dtype=torch.float64), real[:, :9], 4)
    assert order(padded, torch.ones(1, 12, dtype=torch.float64), real, 4).tolist() == alone.tolist()


@torch.no_grad()
def test_without_votes_it_keeps_what_covers_the_embeddings():
    model = duet.attach(tiny_llava(), "stage2:cover_prune", Budget(layers=(2,), ratios=(0.5,)), on="embeddings")
    with duet.record(model) as trace:
        model(**collate(ROWS[:1]))
    pixels = collate(ROWS[:1])["pixel_values"]
    features = duet.detach(model) or model.get_image_features(pixels).pooler_output[0]
    expected = select(keep=PATCHES // 2, features=features[None])[0].sort().values
    assert trace.stages[0].kept[0].tolist() == expected.tolist()
    assert not len(trace.stages[0].voters[0])


@pytest.mark.parametrize("options", [{"votes": 1.0}, {"votes": 0.5, "on": "embeddings"}, {}])
@pytest.mark.parametrize("family", list(FAMILIES))
@torch.no_grad()
def test_runs_on_every_family(family, options):
    known = FAMILIES[family]
    model = duet.attach(
        known.build(), "stage1:cover+stage2:cover_prune", Budget(dominant=4, layers=(2,), ratios=(0.5,)), **options
    )
    check_rows_alone(model, known.prompts, known.collate, "left", {"atol": 2e-4, "rtol": 0})


@torch.no_grad()
def test_votes_change_the_choice():
    kept = []
    for votes in (0.0, 4.0):
        model = duet.attach(
            tiny_llava(), "stage2:cover_prune", Budget(layers=(2,), ratios=(0.3,)), votes=votes, on="hidden"
        )
        with duet.record(model) as trace:
            model(**collate(ROWS[:1]))
        kept.append(trace.stages[0].kept[0].tolist())
    assert kept[0] != kept[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on": "keys"}, "choose embeddings, hidden"),
        ({"merge": "mean"}, "choose cluster, none"),
        ({"votes": -1.0}, "votes is -1.0; it must be at least 0"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        CoverPrune(**options)
    with pytest.raises(UserError, match=message):
        duet.attach(tiny_llava(), "stage2:cover_prune", Budget(layers=(2,), ratios=(0.3,)), **options)


@torch.no_grad()
def test_the_first_drops_may_be_without_votes():
    voters = []
    for after in (0, 1, 2):
        budget = Budget(layers=(2, 4), ratios=(0.6, 0.3))
        model = duet.attach(tiny_llava(), "stage2:cover_prune", budget, votes=1.0, votes_after=after)
        with duet.record(model) as trace:
            model(**collate(ROWS[:1]))
        voters.append([len(stage.voters[0]) > 0 for stage in trace.stages])
    assert voters == [[True, True], [False, True], [False, False]]


@torch.no_grad()
def test_merged_tokens_are_means_of_what_they_cover():
    features = drawn(batch=2)["features"].float()
    index = torch.arange(24).expand(2, -1)
    real = index < torch.tensor([[24], [20]])
    kept = torch.tensor([[2, 7, 11], [0, 5, NONE]])
    edit = clusters(features, index, real, kept, 24)
    out = edit.apply(features)
    for row, picks in enumerate([[2, 7, 11], [0, 5]]):
        groups: dict[int, list[int]] = {pick: [pick] for pick in picks}
        for one in range([24, 20][row]):
            if one not in picks:
                like = cosine(features[row, picks], features[row, one][None], dim=-1)
                groups[picks[int(like.argmax())]].append(one)
        wanted = torch.stack([features[row, groups[pick]].mean(0) for pick in picks])
        torch.testing.assert_close(out[row, : len(picks)], wanted)
        assert edit.sizes[row, : len(picks)].tolist() == [len(groups[pick]) for pick in picks]
