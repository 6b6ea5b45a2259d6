"""Streams to clients that don't read, and events that come too late."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed: pip install -e .[dev]")

from duet.serve.answers import SLACK, EventStream, Inbox
from duet.serve.errors import ApiError
from duet.serve.jobs import Piece


async def events() -> AsyncIterator[bytes]:
    for _ in range(1000):
        yield b"data: x"


@pytest.mark.parametrize("failure", [None, OSError])
def test_a_client_that_does_not_read_is_left(failure: type[Exception] | None) -> None:
    closed: list[bool] = []
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)
        if len(sent) == 3:
            if failure:
                raise failure
            await asyncio.sleep(60)

    stream = EventStream(events(), lambda: closed.append(True), 0.05)
    begin = time.monotonic()
    asyncio.run(stream({}, None, send))  # type: ignore[arg-type]
    assert time.monotonic() - begin < 5 and len(sent) == 3 and closed == [True]


def test_an_inbox() -> None:
    async def run() -> None:
        inbox = Inbox()
        inbox.send(Piece("a"))
        assert await inbox.next(time.monotonic() + 5) == Piece("a")
        late = await inbox.next(time.monotonic() - SLACK)
        assert isinstance(late, ApiError) and late.status == 504
        kept.append(inbox)

    kept: list[Inbox] = []
    asyncio.run(run())
    kept[0].send(Piece("nobody waits"))  # the loop is closed by now
