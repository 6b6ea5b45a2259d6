"""Answers over a real port, asked by the official client."""

from __future__ import annotations

from tests.duet.serve.server import NAME, alone, asked, message, running


def test_an_answer_is_that_of_duet_ask() -> None:
    picture, question = asked(0)
    expected = alone(question.text, picture)
    with running() as server:
        answer = server.client().chat.completions.create(
            model=NAME, messages=[message(question.text, picture)], max_tokens=16
        )
    assert answer.choices[0].message.content == expected
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.duet["visual_tokens"] == 100
