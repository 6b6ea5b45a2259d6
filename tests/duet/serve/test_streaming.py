"""Streams, also inside of batches, and clients that leave."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from duet.serve.gathering import Batching
from tests.duet.serve.server import NAME, Running, asked, babbling, message, running

STEP = 0.02


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """A model that talks without end, a word every 20 ms."""
    model = babbling()
    handle = model.model.register_forward_pre_hook(lambda *_: time.sleep(STEP))
    with running(model, batching=Batching(rows=4, window=0.2)) as server:
        yield server
    handle.remove()


def request(number: int, **options: Any) -> dict[str, Any]:
    picture, question = asked(number)
    return {"model": NAME, "messages": [message(question.text, picture)], "max_tokens": 24, **options}


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)


def read(stream: Any) -> tuple[str, list[Any]]:
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    return text, chunks


def test_a_stream_is_the_whole_answer_piece_by_piece(server: Running) -> None:
    client = server.client()
    whole = client.chat.completions.create(**request(0))
    text, chunks = read(client.chat.completions.create(**request(0), stream=True))
    assert text == whole.choices[0].message.content
    assert len(chunks) > 10 and chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks][-2:] == [None, "length"]
    assert all(chunk.usage is None for chunk in chunks) and len({chunk.id for chunk in chunks}) == 1


def test_usage_at_the_end_of_a_stream(server: Running) -> None:
    client = server.client()
    whole = client.chat.completions.create(**request(0))
    _, chunks = read(client.chat.completions.create(**request(0), stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_pieces_come_as_they_are_made(server: Running) -> None:
    begin = time.monotonic()
    stream = server.client().chat.completions.create(**request(0), stream=True)
    times = [time.monotonic() - begin for _ in stream]
    assert times[-1] - times[1] > 15 * STEP


def test_streams_inside_of_a_batch(server: Running) -> None:
    """Rows of one batch are streamed side by side, and each is what it is alone."""
    client = server.client()
    numbers = range(4)
    alone = [client.chat.completions.create(**request(n)).choices[0].message.content for n in numbers]
    batches = server.service.metrics.batch._sum.get()

    async def together() -> list[tuple[str, float, float]]:
        client = server.async_client()

        async def one(number: int) -> tuple[str, float, float]:
            text, times = "", []
            stream = await client.chat.completions.create(**request(number), stream=True)
            async for chunk in stream:
                text += chunk.choices[0].delta.content or ""
                times.append(time.monotonic())
            return text, times[0], times[-1]

        return await asyncio.gather(*(one(number) for number in numbers))

    found = asyncio.run(together())
    assert [text for text, *_ in found] == alone
    assert max(first for _, first, _ in found) < min(last for *_, last in found)
    assert server.service.metrics.batch._sum.get() - batches == 4


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_the_model(server: Running, stream: bool) -> None:
    """The answer of 400 tokens would take 8 s."""
    service = server.service
    cancelled = service.metrics.cancelled._value.get()

    async def leave() -> None:
        client = server.async_client()
        call = client.chat.completions.create(**request(1, max_tokens=400), stream=stream)
        task = asyncio.create_task(call)
        while service.metrics.running._value.get() == 0:
            await asyncio.sleep(0.01)
        if stream:
            answer = await task
            await anext(aiter(answer))
            await answer.close()
        else:
            task.cancel()
        await client.close()

    begin = time.monotonic()
    asyncio.run(leave())
    wait_until(lambda: service.metrics.running._value.get() == 0)
    assert time.monotonic() - begin < 4
    assert service.metrics.cancelled._value.get() == cancelled + 1
    wait_until(lambda: service.admission.inside == 0 and service.admission.bytes == 0)


def test_a_client_that_leaves_does_not_disturb_its_batch(server: Running) -> None:
    expected = server.client().chat.completions.create(**request(2)).choices[0].message.content

    async def both() -> str:
        client = server.async_client()
        stays = asyncio.create_task(client.chat.completions.create(**request(2)))
        stream = await client.chat.completions.create(**request(1, max_tokens=400), stream=True)
        await anext(aiter(stream))
        await stream.close()
        return (await stays).choices[0].message.content

    begin = time.monotonic()
    assert asyncio.run(both()) == expected
    wait_until(lambda: server.service.metrics.running._value.get() == 0)
    assert time.monotonic() - begin < 4


def test_a_client_that_leaves_the_queue(server: Running) -> None:
    """A prompt without a client does not run."""
    service = server.service

    async def leave() -> None:
        client = server.async_client()
        runs = await client.chat.completions.create(**request(0, max_tokens=200), stream=True)
        await anext(aiter(runs))
        waits = asyncio.create_task(client.chat.completions.create(**request(1)))
        while len(service.queue) == 0:
            await asyncio.sleep(0.01)
        waits.cancel()
        while len(service.queue) > 0:
            await asyncio.sleep(0.01)
        assert service.metrics.running._value.get() == 1
        await runs.close()
        await client.close()

    asyncio.run(asyncio.wait_for(leave(), 10))
    wait_until(lambda: service.metrics.running._value.get() == 0)


def test_an_answer_that_takes_too_long(server: Running) -> None:
    """Errors before a stream's first piece give a status, later ones an event."""
    from openai import APIError, InternalServerError

    service = server.service
    patient = service.setup
    hasty = type(patient)(**{**vars(patient), "limits": type(patient.limits)(timeout=0.6)})
    service.setup = hasty
    try:
        with pytest.raises(InternalServerError) as refused:
            server.client().chat.completions.create(**request(0, max_tokens=400))
        assert refused.value.status_code == 504 and refused.value.code == "timeout"
        stream = server.client().chat.completions.create(**request(0, max_tokens=400), stream=True)
        with pytest.raises(APIError, match="longer than this server allows"):
            list(stream)
    finally:
        service.setup = patient
    wait_until(lambda: service.metrics.running._value.get() == 0)
