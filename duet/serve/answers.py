"""Events of a job -> OpenAI's response, whole or as server-sent events."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from duet.serve.errors import ApiError, timed_out
from duet.serve.jobs import Done, Event, Piece, Usage
from duet.version import VERSION

#: Seconds after the deadline in which the worker may still report the timeout itself.
SLACK = 5.0


class Inbox:
    """Carries events from the worker's thread to the event loop that made it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()

    def send(self, event: Event | None) -> None:
        """From any thread; None means that the client has disconnected."""
        try:
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)
        except RuntimeError:  # the loop is closed, nobody is waiting
            return

    async def next(self, deadline: float) -> Event | None:
        """The next event, or an error if none comes in time."""
        try:
            return await asyncio.wait_for(self._events.get(), max(deadline + SLACK - time.monotonic(), 0))
        except asyncio.TimeoutError:
            return timed_out()


@dataclass(frozen=True)
class Labels:
    """Labels of an answer.

    Attributes:
        model: its name for clients.
        method: that is attached.
        budget: its name.
        id, created: of this answer.
    """

    model: str
    method: str
    budget: str
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def head(self, kind: str) -> dict[str, Any]:
        """The fields that every answer and every chunk begins with."""
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": f"duet-{VERSION}",
        }

    def usage(self, usage: Usage) -> dict[str, Any]:
        """OpenAI's counts, and ours: visual tokens in the prompt and how many were kept."""
        return {
            "prompt_tokens": usage.prompt,
            "completion_tokens": usage.completion,
            "total_tokens": usage.prompt + usage.completion,
            "duet": {
                "method": self.method,
                "budget": self.budget,
                "visual_tokens": usage.visual,
                "kept": list(usage.kept),
                "boundaries": list(usage.boundaries),
                "average": usage.average,
            },
        }


def whole(labels: Labels, text: str, done: Done) -> dict[str, Any]:
    """A whole answer."""
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": done.reason}
    return {**labels.head("chat.completion"), "choices": [choice], "usage": labels.usage(done.usage)}


async def pieces(
    labels: Labels, first: Event | None, more: Callable[[], Any], include_usage: bool
) -> AsyncIterator[bytes]:
    """An answer as server-sent events.

    Args:
        labels: of the answer.
        first: its first event; `more` gives the next ones.
        include_usage: end with a chunk that has the usage, for `stream_options`.
    """

    def chunk(choices: list[dict[str, Any]], **extra: Any) -> bytes:
        extra = {"usage": None, **extra} if include_usage else extra
        return _event({**labels.head("chat.completion.chunk"), "choices": choices, **extra})

    def choice(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}

    yield chunk([choice({"role": "assistant", "content": ""})])
    event = first
    while isinstance(event, Piece):
        yield chunk([choice({"content": event.text})])
        event = await more()
    if isinstance(event, ApiError):
        yield _event(event.body())
        return
    if event is None:
        return
    yield chunk([choice({}, event.reason)])
    if include_usage:
        yield chunk([], usage=labels.usage(event.usage))
    yield b"data: [DONE]\n\n"


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


class EventStream(Response):
    """Sends events as they come, and always calls `close` at the end.

    Args:
        events: to send.
        close: called at the end.
        patience: seconds that the client may take to read an event before it is dropped.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], close: Callable[[], None], patience: float) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self.events, self.close, self.patience = events, close, patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI interface."""

        async def hand(message: Message) -> None:
            await asyncio.wait_for(send(message), self.patience)

        try:
            await hand({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async for event in self.events:
                await hand({"type": "http.response.body", "body": event, "more_body": True})
            await hand({"type": "http.response.body", "body": b"", "more_body": False})
        except (OSError, asyncio.TimeoutError):  # the client has disconnected, or does not read
            return
        finally:
            self.close()
