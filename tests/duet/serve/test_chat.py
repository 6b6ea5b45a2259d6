"""Answers over a real port, asked by the official client."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.duet.serve.server import NAME, Running, alone, asked, message, running


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as server:
        yield server


def test_an_answer_is_that_of_duet_ask():
    picture, question = asked(0)
    expected = alone(question.text, picture)
    with running() as server:
        answer = server.client().chat.completions.create(
            model=NAME, messages=[message(question.text, picture)], max_tokens=16
        )
    assert answer.choices[0].message.content == expected
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.duet["visual_tokens"] == 100
