"""The endpoint's moods: busy, broken, silent, cut off, refusing."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from itertools import pairwise

import pytest

from duet.errors import UserError
from duet.eval.judge.address import endpoint, read_key
from duet.eval.judge.client import CallError, ChatClient, EndpointError, _seconds
from duet.eval.judge.protocol import build_request
from tests.judge_server import YES, Answer, JudgeServer, says

REQUEST = build_request("judge", "q", "a", "p")


def ask(server: JudgeServer, **settings):
    with ChatClient(server.url, **settings) as client:
        return client.complete(REQUEST)


def test_what_is_sent_and_what_comes_back(server: JudgeServer):
    reply = ask(server, key="sk-secret")
    assert (reply.text, reply.served, reply.prompt_tokens, reply.completion_tokens) == (YES, "judge-0125", 300, 12)
    ((_, path, headers, body),) = server.requests
    assert (path, body) == ("/v1/chat/completions", REQUEST)
    assert headers["Authorization"] == "Bearer sk-secret"


def test_no_key_no_header(server: JudgeServer):
    ask(server)
    assert "Authorization" not in server.requests[0][2]


@pytest.mark.parametrize(
    "trouble",
    [
        Answer(429),
        Answer(500, b"oops"),
        Answer(503, headers={"Retry-After": "0"}),
        Answer(408),
        Answer(200, b"<html>not the API</html>"),
        Answer(200, b"\xff\xfe\x00"),
        Answer(200, b'{"choices": []}'),
        Answer(200, b'{"error": "none"}'),
        Answer(200, b"[1, 2]"),
        Answer(200, b'{"choices": [{"message": {"content": ["parts"]}}]}'),
        says(YES, cut=True),
        says(YES, delay=0.8),
    ],
)
def test_trouble_that_passes(server: JudgeServer, trouble: Answer):
    server.script = lambda question, attempt: trouble if attempt < 2 else says(YES)
    with ChatClient(server.url, timeout=0.5) as client:
        assert client.complete(REQUEST).text == YES
        assert (client.calls, client.retried, client.prompt_tokens) == (1, 2, 300)
    assert len(server.requests) == 3


def test_attempts_are_bounded(server: JudgeServer):
    server.script = lambda question, attempt: Answer(500, b"still broken")
    with pytest.raises(CallError, match=r"status 500: still broken \(3 attempts\)"):
        ask(server, retries=2)
    assert len(server.requests) == 3


def test_nobody_listens(server: JudgeServer):
    with pytest.raises(CallError, match="ConnectError"), ChatClient("http://127.0.0.1:1/v1", retries=1) as client:
        client.complete(REQUEST)


def test_waits_grow_and_are_bounded(server: JudgeServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("duet.eval.judge.client.FIRST_WAIT", 0.1)
    monkeypatch.setattr("duet.eval.judge.client.LONGEST_WAIT", 0.2)
    server.script = lambda question, attempt: Answer(500)
    with pytest.raises(CallError):
        ask(server, retries=5)
    times = [moment for moment, *_ in server.requests]
    waits = [later - earlier for earlier, later in pairwise(times)]
    assert all(wait >= least for wait, least in zip(waits, (0.1, 0.2, 0.2, 0.2, 0.2), strict=True))
    assert sum(waits) < 2.5  # doubling without bound takes 3.1 seconds


def test_retry_after_holds_back_all_threads(server: JudgeServer):
    """One thread is told to wait; another that comes meanwhile waits as well."""
    server.script = lambda question, attempt: Answer(429, headers={"Retry-After": "0.5"})
    others = build_request("judge", "other", "a", "p")
    with ChatClient(server.url) as client, ThreadPoolExecutor(2) as pool:
        first = pool.submit(client.complete, REQUEST)
        while not client.quiet_until:
            time.sleep(0.01)
        server.script = lambda question, attempt: says(YES)
        second = pool.submit(client.complete, others)
        assert first.result().text == second.result().text == YES
    told, *later = [moment for moment, *_ in server.requests]
    assert len(later) == 2 and all(moment - told >= 0.5 for moment in later)


def test_retry_after_forms():
    assert _seconds("7") == 7 and _seconds("-1") == 0 and _seconds("soon") is None and _seconds("") is None
    moment = datetime.now(timezone.utc) + timedelta(seconds=60)
    assert _seconds(format_datetime(moment, usegmt=True)) == pytest.approx(60, abs=2)


def test_a_refused_request_fails_alone(server: JudgeServer):
    server.script = lambda question, attempt: Answer(400, b'{"error": {"message": "too long"}}')
    with pytest.raises(CallError, match="too long"):
        ask(server)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("answer", "advice"),
    [
        (Answer(401, b"wrong key sk-secret"), "set the key in DUET_JUDGE_KEY or OPENAI_API_KEY"),
        (Answer(403), "may not use this model"),
        (Answer(404, b"no such model"), "check --judge-url"),
        (Answer(307, headers={"Location": "http://elsewhere/v1"}), "points to http://elsewhere/v1"),
        (Answer(405), "OpenAI-compatible"),
        (Answer(429, b'{"error": {"code": "insufficient_quota"}}'), "insufficient_quota"),
    ],
)
def test_useless_to_go_on(server: JudgeServer, answer: Answer, advice: str):
    server.script = lambda question, attempt: answer
    with ChatClient(server.url, key="sk-secret") as client:
        for _ in range(2):
            with pytest.raises(EndpointError, match=advice) as caught:
                client.complete(REQUEST)
            assert "sk-secret" not in str(caught.value)
    assert len(server.requests) == 1


def test_a_stopped_client_does_not_wait(server: JudgeServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("duet.eval.judge.client.FIRST_WAIT", 60.0)
    server.script = lambda question, attempt: Answer(500)
    with ChatClient(server.url) as client, ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.complete, REQUEST)
        while not server.requests:
            time.sleep(0.01)
        client.stop()
        with pytest.raises(CallError, match="stopped"):
            call.result(timeout=5)


def test_addresses():
    assert endpoint("http://localhost:8000/v1/") == "http://localhost:8000/v1/chat/completions"
    assert endpoint("https://api.openai.com/v1/chat/completions") == "https://api.openai.com/v1/chat/completions"
    for bad in ("localhost", "ftp://x/v1", "", "http://", "http://user:pass@host/v1", "http://host/v1?key=1"):
        with pytest.raises(UserError, match="--judge-url") as caught:
            endpoint(bad)
        assert "pass" not in str(caught.value).replace("password", "")


def test_keys(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("DUET_JUDGE_KEY", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert read_key() == ""
    monkeypatch.setenv("OPENAI_API_KEY", " general\n")
    assert read_key() == "general"
    monkeypatch.setenv("DUET_JUDGE_KEY", "own")
    assert read_key() == "own"
    monkeypatch.setenv("DUET_JUDGE_KEY", "sécret")
    with pytest.raises(UserError, match="DUET_JUDGE_KEY") as caught:
        read_key()
    assert "cret" not in str(caught.value)
