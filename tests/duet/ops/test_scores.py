"""Attention rows and column sums: against one softmax per head and query."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.measure import peak_bytes
from duet.ops.scores import attention_probabilities, mean_rows, mean_vote, received_attention
from tests.drawing import normals


def slow_probabilities(q, k, scale, visible=None):
    batch, heads, rows, _ = q.shape
    found = torch.zeros(batch, heads, rows, k.shape[2], dtype=torch.float64)
    for b in range(batch):
        for head in range(heads):
            key_head = head // (heads // k.shape[1])
            for row in range(rows):
                seen = range(k.shape[2]) if visible is None else visible[b, row].nonzero().flatten().tolist()
                weights = [math.exp(float(q[b, head, row] @ k[b, key_head, column]) * scale) for column in seen]
                for column, weight in zip(seen, weights, strict=True):
                    found[b, head, row, column] = weight / sum(weights)
    return found


@given(st.data(), st.sampled_from([(1, 1), (2, 1), (4, 2), (3, 3)]))
def test_probabilities_are_softmax_rows_also_with_grouped_heads(data, heads):
    q = data.draw(normals((1, 2), heads[0], (1, 3), 2))
    k = data.draw(normals(2, heads[1], (1, 4), 2))[: len(q)]
    flags = torch.rand(len(q), q.shape[2], k.shape[2]) < 0.6
    visible = None if data.draw(st.booleans()) else flags.index_fill(2, torch.tensor([0]), True)
    torch.testing.assert_close(
        attention_probabilities(q, k, 0.7, visible), slow_probabilities(q, k, 0.7, visible), atol=1e-12, rtol=0
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_scored_in_float32(dtype):
    q, k = torch.randn(1, 2, 3, 4, dtype=dtype), torch.randn(1, 2, 5, 4, dtype=dtype)
    assert attention_probabilities(q, k, 0.5).dtype == torch.float32


@given(normals((1, 2), 2, (1, 7), 3), st.integers(1, 8))
def test_received_attention_sums_columns_however_many_at_a_time(q, chunk):
    k = q.flip(2)
    wanted = slow_probabilities(q, k, 0.5).mean(1).sum(1)
    torch.testing.assert_close(received_attention(q, k, 0.5, chunk), wanted, atol=1e-12, rtol=0)


@given(normals((1, 2), 4, (1, 7), 3), st.integers(1, 8), st.booleans())
def test_mean_rows_average_over_heads_however_many_at_a_time(q, chunk, all_seen):
    k = q.flip(2)[:, :2]
    visible = None if all_seen else torch.ones(len(q), q.shape[2], k.shape[2]).tril().bool()
    wanted = slow_probabilities(q, k, 0.5, visible).mean(1)
    torch.testing.assert_close(mean_rows(q, k, 0.5, visible, chunk), wanted, atol=1e-12, rtol=0)


def test_large_maps_take_no_more_than_a_few_times_the_queries():
    q, k = torch.randn(2, 1, 16, 2048, 16).unbind(0)
    for score in (received_attention, mean_rows):
        peak = peak_bytes(torch.device("cpu"), lambda score=score: score(q, k, 0.25))
        whole = 2 * 2048**2 * 4 if score is mean_rows else 0  # what it returns, put together from its parts
        assert peak < 5 * q.nbytes + whole


@given(normals((1, 3), (1, 4), 5), st.randoms(use_true_random=False))
def test_mean_vote_leaves_padding_rows_out(rows, random):
    real = torch.tensor([[random.random() < 0.5 for _ in row] for row in rows])
    votes = mean_vote(rows, real)
    for b in range(len(real)):
        chosen = rows[b][real[b]]
        wanted = chosen.mean(0) if len(chosen) else torch.zeros(5, dtype=torch.float64)
        torch.testing.assert_close(votes[b], wanted)
