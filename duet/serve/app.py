"""The HTTP side: `/v1/chat/completions`, `/v1/models`, `/health`, `/metrics`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from duet.serve.admission import Admission, Ticket
from duet.serve.answers import EventStream, Inbox, Labels, pieces, whole
from duet.serve.errors import ApiError, failed
from duet.serve.fetch import Fetcher
from duet.serve.gathering import Batching, Gathering
from duet.serve.jobs import Done, Event, Job, Piece
from duet.serve.keys import Keys
from duet.serve.limits import Limits
from duet.serve.metrics import Metrics
from duet.serve.model import Served
from duet.serve.preparing import Preparing
from duet.serve.schema import ChatRequest, unknown_model
from duet.serve.worker import Worker

#: Requests that fetch files at the same time.
FETCHES = 8


@dataclass(frozen=True)
class Setup:
    """The parts and settings of a server.

    Attributes:
        served: the model.
        name: for clients.
        keys: accepted API keys.
        limits, batching: limits of requests and batches.
        domains: pictures and videos may be fetched from these.
        grace: seconds for running requests when the server shuts down.
        threads: that prepare requests.
    """

    served: Served
    name: str
    keys: Keys
    limits: Limits = field(default_factory=Limits)
    batching: Batching = field(default_factory=Batching)
    domains: tuple[str, ...] = ()
    grace: float = 30.0
    threads: int = 2


class Service:
    """The parts of a running server, and the path of a request through them."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.queue = Gathering(setup.batching)
        self.metrics = Metrics(lambda: len(self.queue), setup.served.gallery)
        self.worker = Worker(setup.served, self.queue, self.metrics, setup.limits.wait)
        self.admission = Admission(setup.limits, setup.limits.queue + setup.batching.rows)
        fetcher = Fetcher(setup.domains, setup.limits) if setup.domains else None
        self.preparing = Preparing(setup.served, setup.name, setup.limits, fetcher)
        self.started = int(time.time())
        self._threads = ThreadPoolExecutor(setup.threads, "duet-prepare")
        # other hosts may be slow; requests that need no fetching do not wait for them
        self._waiters = ThreadPoolExecutor(FETCHES, "duet-fetch")

    def start(self) -> None:
        """Begin to answer."""
        self.worker.start()

    def stop(self) -> None:
        """Stop; open requests get a 503."""
        self.worker.stop(self.setup.grace)
        for pool in (self._threads, self._waiters):
            pool.shutdown(wait=False, cancel_futures=True)

    async def complete(self, request: Request) -> Response:
        """Answer a request.

        Raises:
            ApiError: it is refused, or failed before the answer began.
        """
        self.setup.keys.check(request.headers.get("authorization"))
        arrival = time.monotonic()
        ticket = self.admission.enter(self.queue.retry_after())
        leave: list[Callable[[], Any]] = [ticket.leave]
        try:
            response = await self._answer(request, ticket, arrival, leave)
        except ClientDisconnect:  # before the whole body arrived
            response = Response(status_code=499)
        except BaseException:
            _all(leave)
            raise
        if not isinstance(response, EventStream):
            _all(leave)
        return response

    async def _answer(
        self, request: Request, ticket: Ticket, arrival: float, leave: list[Callable[[], Any]]
    ) -> Response:
        asked, encoded = await self._prepare(request, ticket)
        inbox = Inbox()
        budget = asked.budget or self.setup.served.default
        job = Job(encoded, asked.sampling, budget, inbox.send, arrival + self.setup.limits.timeout, arrival)
        watch = asyncio.create_task(self._watch(request, job, inbox))
        leave += [job.cancel, watch.cancel, partial(self.queue.discard, job)]
        self.queue.put(job)
        labels = Labels(self.setup.name, self.setup.served.settings[budget].method, budget)
        more = partial(self._next, inbox, job)
        event = await more()
        if asked.stream and not isinstance(event, ApiError):
            events = pieces(labels, event, more, asked.include_usage)
            return EventStream(events, partial(_all, leave), self.setup.limits.upload)
        text = ""
        while isinstance(event, Piece):
            text += event.text
            event = await more()
        if isinstance(event, ApiError):
            raise event
        return Response(status_code=499) if event is None else JSONResponse(whole(labels, text, event))

    async def _prepare(self, request: Request, ticket: Ticket) -> tuple[ChatRequest, Any]:
        loop = asyncio.get_running_loop()
        body = await ticket.read(request, self.queue.retry_after())
        asked, prompt = await loop.run_in_executor(self._threads, self.preparing.parse, body)
        files = await loop.run_in_executor(self._waiters, self.preparing.read, asked)
        encoded = await loop.run_in_executor(self._threads, self.preparing.encode, asked, prompt, files)
        ticket.drop_body()
        # the messages hold the pictures as text
        return replace(asked, messages=()), encoded

    async def _next(self, inbox: Inbox, job: Job) -> Event | None:
        event = await inbox.next(job.deadline)
        if isinstance(event, Done):
            self.metrics.finished(job, event)
        return event

    async def _watch(self, request: Request, job: Job, inbox: Inbox) -> None:
        """Wait until the client disconnects."""
        while (await request.receive())["type"] != "http.disconnect":
            pass
        if not job.over:
            job.cancel()
            self.metrics.cancelled.inc()
            inbox.send(None)


def _all(calls: list[Callable[[], Any]]) -> None:
    for call in calls:
        call()


def create_app(setup: Setup) -> FastAPI:
    """The application; the model's thread lives as long as the application."""
    service = Service(setup)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await asyncio.get_running_loop().run_in_executor(None, service.stop)

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.state.service = service
    app.add_exception_handler(ApiError, _refused)
    app.add_exception_handler(HTTPException, _not_here)
    app.add_exception_handler(Exception, _broken)
    app.add_middleware(_Counting, metrics=service.metrics)

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        return await service.complete(request)

    @app.get("/v1/models")
    async def models(request: Request) -> Response:
        setup.keys.check(request.headers.get("authorization"))
        return JSONResponse({"object": "list", "data": [_model(service)]})

    @app.get("/v1/models/{name:path}")
    async def model(request: Request, name: str) -> Response:
        setup.keys.check(request.headers.get("authorization"))
        if name != setup.name:
            raise unknown_model(name)
        return JSONResponse(_model(service))

    @app.get("/health")
    async def health() -> Response:
        alive = service.worker.alive
        return JSONResponse({"status": "ok" if alive else "failed"}, 200 if alive else 503)

    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        setup.keys.check(request.headers.get("authorization"))
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    return app


def _model(service: Service) -> dict[str, Any]:
    served = service.setup.served
    budgets = {name: setting.method for name, setting in served.settings.items()}
    return {
        "id": service.setup.name,
        "object": "model",
        "created": service.started,
        "owned_by": "duet",
        "duet": {"budgets": budgets, "default": served.default, "context": served.context},
    }


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body(), error.status, error.headers())


async def _not_here(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    say = {404: "no such address", 405: "wrong HTTP method for this address"}
    wrong = ApiError(error.status_code, say.get(error.status_code, "the request can't be answered"))
    return JSONResponse(wrong.body(), error.status_code, error.headers)


async def _broken(request: Request, error: Exception) -> Response:
    return await _refused(request, failed())


class _Counting:
    """Counts requests by their status."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start" and scope["path"].startswith("/v1/"):
                self.metrics.requests.labels(str(message["status"])).inc()
            await send(message)

        await self.app(scope, receive, counted if scope["type"] == "http" else send)
