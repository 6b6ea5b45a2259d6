"""A chat endpoint on localhost that answers, refuses, hangs and hangs up as a test says; a small MSVD folder."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

YES, NO = "{'pred': 'yes', 'score': 5}", "{'pred': 'no', 'score': 1}"


@dataclass
class Answer:
    """One HTTP answer; `cut` announces the whole body and hangs up in the middle."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: bool = False


def says(text: Any, **how: Any) -> Answer:
    """A chat completion with this message."""
    content = {
        "model": "judge-0125",
        "choices": [{"message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 300, "completion_tokens": 12},
    }
    return Answer(body=json.dumps(content).encode(), **how)


class JudgeServer(ThreadingHTTPServer):
    """Answers `script(question, attempt)`; attempts of a question are counted from 0."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script: Callable[[str, int], Answer] = lambda question, attempt: says(YES)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"
        self.lock = threading.Lock()
        self.requests: list[tuple[float, str, dict, dict]] = []
        self.attempts: Counter[str] = Counter()
        self.running = self.most_running = 0

    @property
    def questions(self) -> list[str]:
        """The questions of all requests, as they came."""
        return [question_of(body) for _, _, _, body in self.requests]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is part of the tests."""


def question_of(body: dict) -> str:
    return body["messages"][1]["content"].split("Question: ", 1)[1].split("\n", 1)[0]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else every answer takes 40 ms
    server: JudgeServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server, question = self.server, question_of(body)
        with server.lock:
            attempt = server.attempts[question]
            server.attempts[question] += 1
            server.requests.append((time.monotonic(), self.path, dict(self.headers), body))
            server.running += 1
            server.most_running = max(server.most_running, server.running)
        try:
            answer = server.script(question, attempt)
            time.sleep(answer.delay)
        finally:
            with server.lock:
                server.running -= 1
        self._send(answer)

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(answer.body[: len(answer.body) // 2] if answer.cut else answer.body)
        if answer.cut:
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """No line per request."""


@dataclass(frozen=True)
class Files:
    """An MSVD folder and predictions for it."""

    data: Path
    predictions: Path
    cache: Path

    def command(self, server: JudgeServer, *more: str) -> list[str]:
        """The words of a `duet judge` command."""
        words = ["msvd", "--data", str(self.data), "--predictions", str(self.predictions)]
        return [*words, "--judge-url", server.url, "--judge-model", "judge", *more]

    def predict(self, texts: dict[int, str]) -> None:
        """Write predictions for some of the rows."""
        rows = ({"id": f"v_{row}", "question": f"what is {row}?", "pred": text} for row, text in texts.items())
        self.predictions.write_text("".join(json.dumps(line) + "\n" for line in rows))
