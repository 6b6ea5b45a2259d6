"""Choosing by score: against Python's own sort, ties to the lower index."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from duet.ops.select import keep_best, ranked, top_and_rest
from tests.drawing import batches

# few different values, so that ties are common
tied = st.integers(0, 3).map(float)


def by_score(row: list[float]) -> list[int]:
    return sorted(range(len(row)), key=lambda index: (-row[index], index))


@given(batches(tied), st.data())
def test_ranked_sorts_with_ties_to_the_lower_index(scores, data):
    k = data.draw(st.integers(0, scores.shape[1]))
    assert ranked(scores, k).tolist() == [by_score(row)[:k] for row in scores.tolist()]


@given(batches(tied), st.data())
def test_top_and_rest_split_all_indices_ascending(scores, data):
    k = data.draw(st.integers(0, scores.shape[1]))
    best, rest = top_and_rest(scores, k)
    assert best.tolist() == [sorted(by_score(row)[:k]) for row in scores.tolist()]
    assert rest.tolist() == [sorted(by_score(row)[k:]) for row in scores.tolist()]


@given(batches(tied), st.data())
def test_keep_best_keeps_the_best_candidates_of_each_row(scores, data):
    batch, width = scores.shape
    flags = st.lists(st.booleans(), min_size=width, max_size=width)
    candidates = torch.tensor([data.draw(flags) for _ in range(batch)])
    counts = torch.tensor([data.draw(st.integers(0, width + 1)) for _ in range(batch)])
    kept = keep_best(scores, candidates, counts)
    for b in range(batch):
        wanted = [index for index in by_score(scores[b].tolist()) if candidates[b, index]][: int(counts[b])]
        assert kept[b].nonzero().flatten().tolist() == sorted(wanted)


def test_keep_best_does_not_read_scores_of_others():
    scores = torch.tensor([[torch.nan, 1.0, torch.inf, 2.0]])
    candidates = torch.tensor([[False, True, False, True]])
    assert keep_best(scores, candidates, torch.tensor([1])).tolist() == [[False, False, False, True]]


@given(batches(tied))
def test_a_row_does_not_depend_on_its_neighbours(scores):
    together = ranked(scores, scores.shape[1])
    alone = torch.cat([ranked(row[None], len(row)) for row in scores])
    assert torch.equal(together, alone)
