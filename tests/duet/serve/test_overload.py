"""More than the server can do, a model that fails, and the end of the server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from duet.errors import UserError
from duet.serve.gathering import Batching
from duet.serve.limits import Limits
from tests.duet.serve.server import NAME, Running, asked, message, running, served
from tests.duet.serve.test_streaming import wait_until


def ask(server: Running, number: int = 0, **options: Any) -> str:
    picture, question = asked(number)
    answer = server.client().chat.completions.create(model=NAME, messages=[message(question.text, picture)], **options)
    return answer.choices[0].message.content


class Gate:
    """Holds the model until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open, self.batches = threading.Event(), []
        answer = served().answer

        def wait(jobs: Any) -> None:
            self.batches.append(len(jobs))
            self.open.wait(30)
            answer(jobs)

        monkeypatch.setattr(served(), "answer", wait)


@contextmanager
def blocked(server: Running, gate: Gate, waiting: int) -> Iterator[list[Future]]:
    """One request in the model, and some in the queue."""
    with ThreadPoolExecutor(waiting + 1) as pool:
        first = pool.submit(ask, server)
        wait_until(lambda: len(gate.batches) == 1)
        others = [pool.submit(ask, server, number) for number in range(1, waiting + 1)]
        wait_until(lambda: len(server.service.queue) == waiting)
        try:
            yield [first, *others]
        finally:
            gate.open.set()


def test_overload(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who are in are answered, the next ones told when to come again; the official client does."""
    from openai import InternalServerError

    gate = Gate(monkeypatch)
    with running(limits=Limits(queue=3), batching=Batching(rows=1)) as server:
        with blocked(server, gate, 3) as answers:
            for _ in range(3):
                with pytest.raises(InternalServerError) as refused:
                    ask(server)
                assert refused.value.status_code == 503 and refused.value.code == "overloaded"
                assert 1 <= int(refused.value.response.headers["retry-after"]) <= 60
            assert server.get("/health", key=None)[0] == 200
            begin = time.monotonic()
            threading.Timer(0.3, gate.open.set).start()
            again = (
                server.client()
                .with_options(max_retries=3)
                .chat.completions.create(model=NAME, messages=[message(asked(0)[1].text, asked(0)[0])])
            )
            assert time.monotonic() - begin >= 1  # as Retry-After asked for
        assert [answer.result(10) for answer in answers] == [ask(server, number) for number in range(4)]
        assert again.choices[0].message.content == ask(server)


def test_too_many_bytes_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    from openai import InternalServerError

    gate = Gate(monkeypatch)
    setup = {"batching": Batching(rows=1, waiting=100_000)}
    refusal = pytest.raises(InternalServerError, match="overloaded")
    with running(**setup) as server, blocked(server, gate, 1), refusal:
        ask(server)


def test_too_many_bodies(monkeypatch: pytest.MonkeyPatch) -> None:
    from openai import InternalServerError

    with running(limits=Limits(bodies=1000)) as server, pytest.raises(InternalServerError, match="overloaded"):
        ask(server)


def test_waiting_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    from openai import InternalServerError

    gate = Gate(monkeypatch)
    setup = {"limits": Limits(wait=0.2), "batching": Batching(rows=1)}
    with running(**setup) as server, blocked(server, gate, 1) as (first, second):
        time.sleep(0.3)
        gate.open.set()
        assert first.result(10)
        with pytest.raises(InternalServerError) as refused:
            second.result(10)
        assert refused.value.status_code == 503 and "retry-after" in refused.value.response.headers


def test_a_slow_body_is_given_up() -> None:
    import socket

    with running(limits=Limits(upload=0.2)) as server, socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a-key-of-the-tests\r\n"
            b"Content-Length: 1000\r\n\r\n{"
        )
        sock.settimeout(10)
        assert sock.recv(1000).startswith(b"HTTP/1.1 408 ")
        wait_until(lambda: server.service.admission.inside == 0 and server.service.admission.bytes == 0)


def test_a_client_that_leaves_before_its_body_is_there(caplog: pytest.LogCaptureFixture) -> None:
    import socket

    with running() as server:
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            sock.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a-key-of-the-tests\r\n"
                b"Content-Length: 1000\r\n\r\n{"
            )
            wait_until(lambda: server.service.admission.bytes == 1000)
        wait_until(lambda: server.service.admission.inside == 0 and server.service.admission.bytes == 0)
    assert "Traceback" not in caplog.text


def test_one_bad_row_does_not_spoil_its_batch(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from openai import BadRequestError, InternalServerError

    answer, batches = served().answer, []

    def fail(jobs: Any) -> None:
        batches.append(len(jobs))
        seeds = [job.sampling.seed for job in jobs]
        if 1 in seeds:
            raise RuntimeError("a secret of the server: /home/someone")
        if 2 in seeds:
            raise UserError("another secret")
        answer(jobs)

    monkeypatch.setattr(served(), "answer", fail)
    with running(batching=Batching(rows=8, window=0.5)) as server:
        with ThreadPoolExecutor(5) as pool:
            found = [pool.submit(ask, server, seed, seed=seed) for seed in range(5)]
            errors = [future.exception() for future in found]
        assert batches[0] == 5 and sorted(batches[1:]) == [1] * 5
        assert isinstance(errors[1], InternalServerError) and isinstance(errors[2], BadRequestError)
        assert "secret" not in str(errors[1]) + str(errors[2]) and errors[2].param == "duet.budget"
        assert "a secret of the server" in caplog.text
        monkeypatch.undo()
        assert [found[n].result() for n in (0, 3, 4)] == [ask(server, n) for n in (0, 3, 4)]


def test_a_dead_worker_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as server:
        monkeypatch.setattr(type(server.service.worker), "alive", property(lambda self: False))
        assert server.get("/health", key=None) == (503, '{"status":"failed"}')


def test_the_end_of_the_server_waits_for_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    with ThreadPoolExecutor(1) as pool:
        with running(grace=10) as server:
            answer = pool.submit(ask, server)
            wait_until(lambda: len(gate.batches) == 1)
            threading.Timer(0.3, gate.open.set).start()
        assert answer.result(10)


def test_the_end_of_the_server_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    begin = time.monotonic()
    with running(grace=1, batching=Batching(rows=1)) as server, blocked(server, gate, 1) as answers:
        server.server.should_exit = True
        assert all(answer.exception(10) is not None for answer in answers)
        gate.open.set()
    assert time.monotonic() - begin < 8


def test_memory_is_given_back() -> None:
    """Bodies, tensors and places of whatever was asked, right or wrong."""
    from openai import APIStatusError

    with running(limits=Limits(medium=100_000)) as server:
        large = asked(0)[0].resize((400, 400))
        bad = [
            {"messages": [message("?", large)]},
            {"messages": [message("?", asked(0)[0])], "n": 2},
            {"messages": [message("<image>", asked(0)[0])]},
        ]
        for options in bad:
            with pytest.raises(APIStatusError):
                server.client().chat.completions.create(model=NAME, **options)
        ask(server)
        admission = server.service.admission
        wait_until(lambda: (admission.inside, admission.bytes, len(server.service.queue)) == (0, 0, 0))
        assert server.service.queue._bytes == 0
