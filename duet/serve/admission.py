"""Admits a bounded number of requests, and a bounded number of body bytes, at a time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from duet.serve.errors import ApiError, overloaded
from duet.serve.limits import MEGA, Limits

if TYPE_CHECKING:
    from starlette.requests import Request


class Admission:
    """Counts requests from headers to last byte. Used only by the event loop.

    Args:
        limits: of the server.
        requests: most at a time, waiting or being answered.
    """

    def __init__(self, limits: Limits, requests: int) -> None:
        self.limits, self.requests = limits, requests
        self.inside, self.bytes = 0, 0

    def enter(self, retry_after: int) -> Ticket:
        """Reserve a slot for a request.

        Raises:
            ApiError: 503 if there is none.
        """
        if self.inside >= self.requests:
            raise overloaded(retry_after)
        self.inside += 1
        return Ticket(self)


class Ticket:
    """The slot of one request; release it with `leave`."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self._bytes = 0
        self._left = False

    async def read(self, request: Request, retry_after: int) -> bytes:
        """The body of the request.

        Raises:
            ApiError: 413 if too long, 408 if too slow, 503 if there are too many bodies at a time.
        """
        limits = self.admission.limits
        announced = request.headers.get("content-length", "")
        # uvicorn has checked that it is a number
        length = int(announced) if announced.isdecimal() else limits.body
        if length > limits.body:
            raise _too_long(limits)
        if self.admission.bytes + length > limits.bodies:
            raise overloaded(retry_after)
        self._bytes = length
        self.admission.bytes += length
        try:
            return await asyncio.wait_for(_collect(request, limits), limits.upload)
        except asyncio.TimeoutError:
            raise ApiError(408, "the body took too long to arrive", code="slow_upload") from None

    def drop_body(self) -> None:
        """The body is no longer in memory."""
        self.admission.bytes -= self._bytes
        self._bytes = 0

    def leave(self) -> None:
        """The request is over."""
        self.drop_body()
        if not self._left:
            self._left = True
            self.admission.inside -= 1


async def _collect(request: Request, limits: Limits) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limits.body:
            raise _too_long(limits)
    return bytes(body)


def _too_long(limits: Limits) -> ApiError:
    return ApiError(413, f"the body is longer than {limits.body / MEGA:g} MiB, the limit", code="too_large")
