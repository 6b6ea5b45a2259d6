"""What is TOPS' own: its three terms, and the same rule inside the language model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from duet.baselines.tops import Preservation, TopsPrune, select
from duet.edit import NONE
from duet.ops.greedy import greedy
from duet.ops.raters import raters
from duet.ops.similarity import cosines
from duet.types import LayerView
from tests import plain_reducers
from tests.duet.baselines.inputs import drawn
from tests.duet.pyramiddrop.views import make_view, mean_of

COUNTS = torch.tensor([3, 2])


def states(seed: int) -> tuple[LayerView, torch.Tensor]:
    view, maps = make_view(seed)
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(2, 9, 5, generator=generator, dtype=torch.float64)
    embeddings = torch.randn(2, 9, 5, generator=generator, dtype=torch.float64)
    visual = view.visual & (torch.arange(9) != 2)
    visual[0] = view.visual[0]  # four tokens, the other row has three
    return replace(view, visual=visual, hidden=hidden, embeddings=embeddings), maps


@pytest.mark.parametrize("weights", [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.5, 2.0)])
def test_each_term_has_its_weight(weights):
    inputs = drawn(seed=3, batch=1)
    given = {"projected": inputs["projected"], "cls_attention": inputs["cls_attention"]}
    alpha, lambda_ = weights
    kept = select(keep=6, alpha=alpha, lambda_=lambda_, **given)[0].tolist()
    rows = {key: value[0] for key, value in given.items()}
    if 0 in weights:
        weights = tuple(weight or 1e-12 for weight in weights)
    assert kept == sorted(plain_reducers.tops(6, **rows, alpha=weights[0], lambda_=weights[1]))


@pytest.mark.parametrize("seed", range(20))
def test_stage_2_is_the_same_rule_on_hidden_states(seed):
    view, maps = states(seed)
    scores, voters = TopsPrune().score(view)
    edit = TopsPrune().edit(view, scores, COUNTS)
    for row, count in enumerate(COUNTS.tolist()):
        visual, text = view.visual[row].nonzero().flatten(), view.text[row].nonzero().flatten()
        chosen = raters(visual=view.embeddings[row : row + 1, visual], text=view.embeddings[row : row + 1, text])[0]
        assert voters[row].nonzero().flatten().tolist() == text[chosen].tolist()
        torch.testing.assert_close(scores[row], mean_of(maps, row, text[chosen].tolist()))
        expected = plain_reducers.tops(count, view.hidden[row, visual], scores[row, visual], 0.5, 1.0)
        kept = edit.kept[row]
        assert kept[kept != NONE].tolist() == visual[sorted(expected)].tolist()


def test_raters_are_chosen_once():
    """At a later boundary fewer visual tokens are left; who votes has not changed."""
    view, _ = states(0)
    _, first = TopsPrune().score(view)
    fewer = view.visual & (torch.arange(9) > 2)
    _, later = TopsPrune().score(replace(view, visual=fewer, embeddings=-view.embeddings))
    assert later.tolist() == first.tolist()


def test_no_more_is_kept_than_there_is():
    view, _ = states(0)
    scores, _ = TopsPrune().score(view)
    edit = TopsPrune().edit(view, scores, torch.tensor([9, 0]))
    assert (edit.kept != NONE).sum(1).tolist() == [4, 0]
    assert TopsPrune().edit(view, scores, torch.tensor([4, 4])).kept[1].tolist() == [0, 1, 3, NONE]
    assert TopsPrune().edit(view, scores, torch.tensor([0, 0])).kept.shape == (2, 0)


def test_what_is_rounding_only_does_not_count():
    """Patches of one colour: nothing is diverse and nothing is left to cover, so the most relevant ones stay."""
    generator = torch.Generator().manual_seed(0)
    colour = torch.randn(1, 1, 301, generator=generator).expand(-1, 40, -1)
    colour = colour * (1 + torch.arange(40)[:, None] / 7)
    relevance = torch.rand(1, 40, generator=generator)
    kept = select(keep=10, projected=colour, cls_attention=relevance)[0]
    assert kept.tolist() == relevance[0].topk(10).indices.sort().values.tolist()


@pytest.mark.parametrize("seed", range(10))
def test_padding_needs_no_covering(seed):
    inputs = drawn(seed, batch=1)
    similarity, relevance = cosines(inputs["projected"]), inputs["cls_attention"]
    real = torch.arange(24)[None] % 3 != 1
    padded = greedy(Preservation(similarity.clone(), relevance, real, 0.5, 1.0), 8, real)
    only = real[0].nonzero().flatten()
    smaller = similarity[:, only][:, :, only]
    alone = greedy(Preservation(smaller, relevance[:, only], real[:, only], 0.5, 1.0), 8, real[:, only])
    assert padded.tolist() == [only[alone[0]].tolist()]
