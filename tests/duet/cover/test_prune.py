"""`cover_prune`: coverage inside the language model."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cosine_similarity as cosine

import duet
from duet.budget import Budget
from duet.cover.cover import select
from duet.cover.prune import CoverPrune, order
from duet.edit import NONE
from duet.errors import UserError
from duet.ops.coverage import clusters
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


def test_sizes_count_as_copies_would():
    """Tokens with sizes are covered and merged as if each stood there as often as it has patches."""
    features = drawn(batch=1)["features"]
    sizes = torch.randint(1, 5, (1, 24), generator=torch.Generator().manual_seed(1))
    real, one = torch.ones(1, 24, dtype=torch.bool), torch.ones(1, 24, dtype=torch.float64)
    picks = order(features, one, real, 6, sizes)[0]
    left = list(range(24))
    covered, wanted = torch.zeros(24, dtype=torch.float64), []
    like = cosine(features[0][:, None], features[0][None], dim=-1).double()
    for _ in range(6):
        gains = [float((torch.maximum(like[pick], covered) - covered) @ sizes[0].double()) for pick in left]
        wanted.append(left.pop(max(range(len(left)), key=lambda n: (round(gains[n], 9), -n))))
        covered = torch.maximum(like[wanted[-1]], covered)
    assert picks.tolist() == wanted != order(features, one, real, 6)[0].tolist()
    kept = picks.sort().values[None]
    index = torch.arange(24)[None]
    edit = clusters(features, index, real, kept, 24, sizes)
    out = edit.apply(features)[0]
    for slot in range(6):
        mine = (edit.assign[0] == slot).nonzero().flatten()
        copies = features[0, mine].repeat_interleave(sizes[0, mine], dim=0)
        torch.testing.assert_close(out[slot], copies.mean(0))


def test_padding_has_weights_and_gradients():
    """Row 1 keeps one token less, its column 0 is padding, and padding has no size."""
    features = drawn(batch=2)["features"].float().requires_grad_()
    index, kept = torch.arange(24).expand(2, -1), torch.tensor([[2, 7, 11], [4, 5, NONE]])
    real = index >= torch.tensor([[0], [3]])
    edit = clusters(features.detach(), index, real, kept, 24, torch.full((2, 24), 3.0) * real)
    assert edit.share.isfinite().all() and edit.weight.isfinite().all()
    edit.apply(features).sum().backward()
    assert features.grad.isfinite().all()


@torch.no_grad()
def test_sizes_are_read_with_proportional_attention_only():
    """The first stage merges unevenly, so the switch changes the drop after it, and nothing in plain attention."""
    found = {}
    for attention in ("plain", "proportional"):
        for sizes in (True, False):
            budget = Budget(dominant=7, layers=(2,), ratios=(0.45,))
            model = duet.attach(tiny_llava(), "duet_cover", budget, attention=attention, sizes=sizes)
            found[attention, sizes] = model(**collate(ROWS)).logits
    assert torch.equal(found["plain", True], found["plain", False])
    assert (found["proportional", True] - found["proportional", False]).abs().max() > 1e-3
