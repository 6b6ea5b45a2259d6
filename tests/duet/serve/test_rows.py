"""How tokens are drawn, row by row."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from duet.serve.jobs import Done, Encoded, Job, Piece, Usage
from duet.serve.rows import Choosing, Handing, Row, sample
from duet.serve.schema import Sampling
from tests.duet.serve.test_text import Letters

END = 3


def draws(scores: list[float], temperature: float, top_p: float, count: int = 2000) -> list[float]:
    """Share of each token in many draws."""
    numbers = random.Random(0)
    rows = torch.tensor(scores).repeat(count, 1)
    found = sample(rows, [temperature] * count, [top_p] * count, [numbers.random() for _ in range(count)])
    return (torch.bincount(found, minlength=len(scores)) / count).tolist()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_come_as_often_as_they_should(temperature: float) -> None:
    scores = [1.0, 0.0, 2.0, -1.0]
    expected = (torch.tensor(scores) / temperature).softmax(0)
    assert draws(scores, temperature, 1.0) == pytest.approx(expected.tolist(), abs=0.03)


def test_the_nucleus() -> None:
    """Of 0.5, 0.3, 0.15 and 0.05 the first two have 0.8, and with anything above the third is in."""
    scores = torch.tensor([0.15, 0.5, 0.05, 0.3]).log().tolist()
    assert draws(scores, 1.0, 0.5) == [0, 1, 0, 0]
    assert draws(scores, 1.0, 0.79) == pytest.approx([0, 5 / 8, 0, 3 / 8], abs=0.03)
    assert draws(scores, 1.0, 0.9) == pytest.approx([15 / 95, 50 / 95, 0, 30 / 95], abs=0.03)
    assert draws(scores, 1.0, 1e-9) == [0, 1, 0, 0]


@pytest.mark.parametrize("temperature", [1e-45, 1e-9, 1e-4])
def test_cold_is_greedy(temperature: float) -> None:
    assert draws([1.0, 1.1, 0.9], temperature, 1.0, 100) == [0, 1, 0]


def test_the_edges_of_the_numbers() -> None:
    scores = torch.tensor([[0.0, -torch.inf, 1.0]] * 2)
    assert sample(scores, [1.0, 1.0], [1.0, 1.0], [0.0, 1 - 2**-53]).tolist() == [2, 0]


def job(**sampling: Any) -> tuple[Job, list[Any]]:
    events: list[Any] = []
    encoded = Encoded({"input_ids": torch.zeros(1, 4, dtype=torch.long)}, 0)
    return Job(encoded, Sampling(**sampling), "default", events.append, float("inf")), events


def row(**sampling: Any) -> tuple[Row, list[Any]]:
    made, events = job(**sampling)
    usage = lambda tokens: Usage(4, tokens, 0, (0,), (0,), 0.0)  # noqa: E731
    return Row(made, Letters(), frozenset([END]), usage), events


def give(rows: list[Row], *steps: tuple[int, ...]) -> list[list[bool]]:
    """Pass tokens step by step; the rows that are finished after each."""
    handing = Handing(rows)
    return [handing(torch.tensor([[0, token] for token in step]), None).tolist() for step in steps]


def test_every_row_ends_for_itself() -> None:
    (first, a), (second, b), (third, c) = row(max_tokens=2), row(), row(stop=("xy",))
    letters = [tuple(map(ord, step)) for step in ("aax", "bby")]
    over = give([first, second, third], *letters, (0, END, 0))
    assert over == [[False] * 3, [True, False, True], [True] * 3]
    assert a[:-1] == [Piece("a"), Piece("b")] and (a[-1].reason, a[-1].usage.completion) == ("length", 2)
    assert b[:-1] == [Piece("a"), Piece("b")] and (b[-1].reason, b[-1].usage.completion) == ("stop", 3)
    assert [type(event) for event in c] == [Done] and c[0].reason == "stop"


def test_a_row_whose_client_has_left() -> None:
    (gone, events), (stays, _) = row(), row()
    gone.job.cancel()
    assert give([gone, stays], (97, 97)) == [[True, False]] and not events


def test_only_rows_that_sample_are_changed() -> None:
    (greedy, _), (sampled, _) = row(), row(temperature=1.0, seed=4)
    scores = torch.tensor([[0.0, 1.0, 2.0]] * 2)
    found = Choosing([greedy, sampled])(torch.zeros(2, 1), scores.clone())
    assert torch.equal(found[0], scores[0])
    assert found[1].isfinite().sum() == 1
    again = Choosing([row(temperature=1.0, seed=4)[0]])(torch.zeros(1, 1), scores[:1].clone())
    assert found[1].argmax() == again[0].argmax()


def test_greedy_rows_alone_cost_nothing() -> None:
    scores = torch.zeros(1, 3)
    assert Choosing([row()[0]])(torch.zeros(1, 1), scores) is scores
