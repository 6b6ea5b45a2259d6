"""Text guidance: who votes, and the mean of the votes, against one row at a time."""

from __future__ import annotations

import pytest
import torch

from duet.pyramiddrop.duet_prune import DuetPrune
from tests.duet.pyramiddrop.views import make_view, mean_of

seeds = pytest.mark.parametrize("seed", range(4))


@seeds
def test_all_text_votes(seed):
    view, maps = make_view(seed)
    scores, voters = DuetPrune("all").score(view)
    assert torch.equal(voters, view.text)
    torch.testing.assert_close(scores, torch.stack([mean_of(maps, 0, [5, 6, 7, 8]), mean_of(maps, 1, [4, 5, 6])]))


@seeds
def test_salient_text_votes(seed):
    salient = torch.tensor([[0, 0, 0, 0, 0, 0, 1, 0, 1], [0, 0, 0, 0, 1, 0, 1, 0, 0]]).bool()
    view, maps = make_view(seed, salient)
    scores, voters = DuetPrune("salient").score(view)
    assert torch.equal(voters, salient)
    torch.testing.assert_close(scores, torch.stack([mean_of(maps, 0, [6, 8]), mean_of(maps, 1, [4, 6])]))


@seeds
def test_text_that_looks_at_the_picture_votes(seed):
    view, maps = make_view(seed)
    scores, voters = DuetPrune("attention").score(view)
    for row, (text, last) in enumerate([([5, 6, 7, 8], 8), ([4, 5, 6], 6)]):
        visual = view.visual[row].nonzero().flatten().tolist()
        looks = {token: sum(float(maps[row, :, token, place].mean()) for place in visual) for token in text}
        mean = sum(looks.values()) / len(looks)
        wanted = [token for token in text if looks[token] >= mean or token == last]
        assert voters[row].nonzero().flatten().tolist() == wanted
        torch.testing.assert_close(scores[row], mean_of(maps, row, wanted))


def test_which_guidance_needs_content_words():
    assert DuetPrune("salient").needs == {"salient"}
    assert not DuetPrune("all").needs and not DuetPrune("attention").needs
    with pytest.raises(ValueError, match="text_guidance is 'last'"):
        DuetPrune("last")
