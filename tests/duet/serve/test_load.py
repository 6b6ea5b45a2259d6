"""Many clients at once, some with refused requests: no wrong answer, and none lost.

Every answer has to be the one that the model gives to that question alone, so rows of a batch don't mix.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import Any

import pytest
from PIL import Image

from duet.serve.gathering import Batching
from duet.serve.limits import Limits
from tests.duet.serve.server import NAME, alone, asked, message, running

BUDGETS = ("mini_third", "mini_ninth", "none")
QUESTIONS = 12
#: What is wrong with a request, and the status that it gets.
BAD: list[tuple[dict[str, Any], int]] = [
    ({"n": 3}, 400),
    ({"model": "another"}, 404),
    ({"extra_body": {"duet": {"budget": "llava15_64"}}}, 400),
    ({"messages": [message("<image>")]}, 400),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "/etc/passwd"}}]}]}, 400),
    ({"messages": [message("?", Image.new("1", (6000, 6000)))]}, 400),
    ({"extra_headers": {"Authorization": "Bearer wrong"}}, 401),
]


@dataclass(frozen=True)
class Asked:
    """A request and what has to come back: a text, or a status."""

    options: dict[str, Any]
    stream: bool
    expected: str | int


def requests(count: int, bad: int) -> list[Asked]:
    draw = random.Random(0)
    made = []
    for number in range(count - bad):
        picture, question = asked(number % QUESTIONS)
        budget, stream = BUDGETS[draw.randrange(3)], draw.random() < 0.5
        options = {
            "model": NAME,
            "messages": [message(question.text, picture)],
            "max_tokens": 16,
            "extra_body": {"duet": {"budget": budget}},
        }
        made.append(Asked(options, stream, alone(question.text, picture, budget=budget)))
    picture, question = asked(0)
    for number in range(bad):
        wrong, status = BAD[number % len(BAD)]
        options = {"model": NAME, "messages": [message(question.text, picture)], **wrong}
        made.append(Asked(options, False, status))
    draw.shuffle(made)
    return made


async def ask_all(server: Any, todo: list[Asked], clients: int) -> list[str | int]:
    from openai import APIStatusError

    client, places = server.async_client(), asyncio.Semaphore(clients)

    async def one(each: Asked) -> str | int:
        async with places:
            try:
                answer = await client.chat.completions.create(**each.options, stream=each.stream)
                if not each.stream:
                    return answer.choices[0].message.content
                return "".join([chunk.choices[0].delta.content or "" async for chunk in answer])
            except APIStatusError as error:
                return error.status_code

    async with client:
        return await asyncio.gather(*map(one, todo))


@pytest.mark.parametrize(("count", "bad", "clients"), [(60, 7, 12), pytest.param(500, 25, 32, marks=pytest.mark.slow)])
def test_no_answer_is_wrong_or_lost(count: int, bad: int, clients: int) -> None:
    todo = requests(count, bad)
    assert len({each.expected for each in todo if isinstance(each.expected, str)}) > 3
    with running(batching=Batching(rows=8, window=0.02), limits=Limits(queue=clients)) as server:
        found = asyncio.run(ask_all(server, todo, clients))
        metrics, admission = server.service.metrics, server.service.admission
        assert found == [each.expected for each in todo]
        assert (admission.inside, admission.bytes, len(server.service.queue)) == (0, 0, 0)
        assert metrics.requests.labels("200")._value.get() == count - bad
        batches = sum(bucket.get() for bucket in metrics.batch._buckets)
        assert metrics.batch._sum.get() == count - bad and batches < (count - bad) / 1.5
