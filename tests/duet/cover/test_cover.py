"""`cover`: its greedy choice, its settings that are other methods, merging, and stopping when enough is covered."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

import duet
from duet.baselines import mmtok, scope, tops
from duet.budget import Budget, Stage1
from duet.cover.cover import Cover, clusters, needed, select
from duet.edit import NONE
from duet.engine.attachment import attached
from duet.types import VisionStates
from tests.duet.baselines.inputs import drawn, stored
from tests.families import FAMILIES
from tests.tiny_llava import PATCHES, collate, make_row, tiny_llava
from tests.tiny_parts import check_rows_alone
from tests.tiny_words import tiny_tokenizer

ROWS = [make_row(pictures, text, seed=seed) for seed, (pictures, text) in enumerate([(1, 6), (2, 3), (0, 4), (1, 5)])]
EVERYTHING = {"saliency": 0.5, "words": 1.0, "calibration": "softmax", "merge": "cluster", "floor": 0.2}


def coverage(features: torch.Tensor, chosen: list[int]) -> float:
    unit = normalize(features, dim=-1)
    return float((unit @ unit[chosen].T).clamp_min(0).amax(-1).sum())


def test_every_pick_covers_most():
    features = drawn(batch=1)["features"]
    order = select(keep=6, features=features)[0].tolist()
    for step in range(6):
        rest = [n for n in range(features.shape[1]) if n not in order[:step]]
        best = max(rest, key=lambda n: coverage(features[0], [*order[:step], n]))
        assert order[step] == best


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("inputs", ["base", "odd"])
def test_scope_is_a_setting(inputs, alpha):
    given = {name: stored(inputs)[name] for name in ("features", "cls_attention")}
    ours = select(keep=64, saliency=alpha, **given)
    assert ours.tolist() == scope.order(keep=64, alpha=alpha, **given).tolist()


@pytest.mark.parametrize("inputs", ["base", "odd"])
def test_mmtok_is_a_setting(inputs):
    given = {name: stored(inputs)[name] for name in ("features", "projected", "text_tokens")}
    ours = select(keep=64, temperature=0.2, words=2.0, **given).sort(-1).values
    assert ours.tolist() == mmtok.select(keep=64, **given).tolist()


def test_without_words_only_the_picture_is_covered():
    given = drawn()
    both = {name: given[name] for name in ("features", "projected", "text_tokens")}
    plain = select(keep=6, features=given["features"])
    assert plain.tolist() != select(keep=6, words=3.0, **both).tolist()
    unasked = {**both, "text_tokens": both["text_tokens"][:, :0]}
    assert plain.tolist() == select(keep=6, words=3.0, **unasked).tolist()
    padding = torch.zeros(3, 4, dtype=torch.bool)
    assert plain.tolist() == select(keep=6, words=3.0, text_valid=padding, **both).tolist()


def test_a_cluster_becomes_its_true_mean():
    features = torch.tensor([[[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.0, 3.0], [-1.0, 0.2]]])
    edit = clusters(features, torch.tensor([[0, 2]]), floor=0.5)
    merged = edit.apply(features)
    torch.testing.assert_close(merged[0, 0], features[0, :2].mean(0))
    torch.testing.assert_close(merged[0, 1], features[0, 2:4].mean(0))
    assert edit.assign.tolist() == [[0, 0, 1, 1, -1]]
    everything = clusters(features, torch.tensor([[0, 2]]), floor=-1.0)
    torch.testing.assert_close(everything.apply(features)[0, 1], features[0, 2:].mean(0))
    torch.testing.assert_close(
        clusters(features, torch.tensor([[0, 2]]), floor=1.1).apply(features), features[:, [0, 2]]
    )


def test_equal_patches_and_padding_merge_once():
    features = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 2.0]]])
    edit = clusters(features, torch.tensor([[0, 1, NONE]]), floor=0.5)
    torch.testing.assert_close(edit.apply(features)[0], torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]))
    assert edit.assign.tolist() == [[0, 1, 0, -1]]


def test_simple_pictures_take_fewer_tokens():
    flat = torch.tensor([1.0, 0.2]).expand(12, 2) + 0.01 * torch.randn(
        12, 2, generator=torch.Generator().manual_seed(0)
    )
    crowded = torch.randn(12, 2, generator=torch.Generator().manual_seed(1))
    features = torch.stack([flat, crowded])
    order = select(keep=8, features=features)
    counts = needed(features, order, 0.98).tolist()
    assert counts[0] == 1 < counts[1] <= 8
    chosen = order[1, : counts[1]].tolist()
    assert coverage(crowded, chosen) / 12 >= 0.98 or counts[1] == 8
    assert coverage(crowded, chosen[:-1]) / 12 < 0.98
    edit = Cover(enough=0.98)(VisionStates(features), Stage1(8))
    assert (edit.kept != NONE).sum(-1).tolist() == counts


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"calibration": "sigmoid"}, "choose none, softmax"),
        ({"merge": "all"}, "choose none, cluster"),
        ({"over": "frame"}, "choose medium, unit"),
        ({"words": -1.0}, "at least 0"),
        ({"temperature": 0.0}, "above 0"),
        ({"enough": 0.9, "over": "unit"}, "needs over=medium"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        Cover(**options)


@pytest.mark.parametrize("options", [{}, EVERYTHING, {"over": "unit", "merge": "cluster"}, {"enough": 0.9}])
@pytest.mark.parametrize("family", list(FAMILIES))
@torch.no_grad()
def test_runs_on_every_family(family, options):
    known = FAMILIES[family]
    model = known.build()
    words = tiny_tokenizer(model.config.get_text_config().vocab_size)
    budget = Budget(dominant=4, layers=(2, 4), ratios=(0.5, 0.25))
    duet.attach(model, "duet_cover", budget, tokenizer=words, **options)
    assert not attached(model).compression.renumber
    check_rows_alone(model, known.prompts, known.collate, "left", {"atol": 2e-4, "rtol": 0})


@torch.no_grad()
def test_all_tokens_are_the_stock_model():
    model = tiny_llava()
    batch = collate(ROWS)
    stock = model(**batch).logits
    duet.attach(model, "cover", Budget(dominant=PATCHES), merge="cluster")
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(model(**batch).logits[real], stock[real], atol=2e-4, rtol=0)


@torch.no_grad()
def test_a_picture_that_is_covered_leaves_budget():
    model = duet.attach(tiny_llava(), "cover", Budget(dominant=PATCHES - 1), enough=0.6)
    with duet.record(model) as trace:
        model(**collate(ROWS))
    assert trace.entered[2] == 0 and 0 < trace.entered[0] < PATCHES - 1


def test_tops_first_stage_is_a_setting_without_merging():
    given = {name: stored("base")[name] for name in ("projected", "cls_attention")}
    wanted = tops.select(keep=32, **given)
    ours = select(
        keep=32, features=given["projected"], cls_attention=given["cls_attention"], relevance=2.0, diversity=1.0
    )
    assert ours.sort(-1).values.tolist() == wanted.tolist()


def test_features_that_are_compared():
    given = drawn()
    states = VisionStates(features=given["features"], projected=given["projected"])
    picks = {
        name: Cover(features=name, merge="none")(states, Stage1(6, 0)).kept.tolist()
        for name in ("tower", "projected", "both")
    }
    assert picks["projected"] == select(keep=6, features=given["projected"]).sort(-1).values.tolist()
    assert picks["tower"] != picks["projected"]
    both = torch.cat([normalize(given[name], dim=-1) for name in ("features", "projected")], -1)
    assert picks["both"] == select(keep=6, features=both).sort(-1).values.tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": "keys"}, "choose tower, projected, both"),
        ({"diversity": 1.0}, "give relevance, too"),
        ({"relevance": 1.0, "saliency": 1.0}, "another way than saliency"),
        ({"relevance": -1.0}, "relevance is -1.0; it must be at least 0"),
    ],
)
def test_wrong_weights(options, message):
    with pytest.raises(ValueError, match=message):
        Cover(**options)
