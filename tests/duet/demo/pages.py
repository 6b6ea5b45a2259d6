"""The page of the small world's model on a real port, for tests."""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest

import duet

CHECKPOINT = "playground/mini/checkpoints/llava-mini"
METHODS = ["duet", "visionzip"]

for library in ("gradio", "fastapi"):
    pytest.importorskip(library, reason=f"{library} is not installed: pip install -e .[demo]")


@cache
def small_demo() -> Any:
    """One for all tests: the page keeps nothing on the model."""
    from duet.demo.model import Demo

    return Demo(*duet.load(CHECKPOINT, device="cpu"), "llava-mini")


@contextmanager
def open_page(demo: Any, examples: Any = ()) -> Iterator[str]:
    """Address of a page, until the end of the block."""
    from duet.demo.page import build, launch_options

    page = build(demo, METHODS, 2 / 9, examples)
    address = page.launch(**launch_options(demo), server_name="127.0.0.1", prevent_thread_lock=True)[1]
    try:
        yield address.rstrip("/")
    finally:
        page.close(verbose=False)


class Visitor:
    """Speaks to a page without a browser, and without keeping to what a browser would send."""

    def __init__(self, address: str) -> None:
        import httpx

        self.http = httpx.Client(base_url=address, timeout=60)
        self.config = self.http.get("/config").json()
        self.session = uuid.uuid4().hex

    def event(self, outputs: int) -> int:
        """Number of the event that has so many outputs."""
        return next(one["id"] for one in self.config["dependencies"] if len(one["outputs"]) == outputs)

    def upload(self, content: bytes, name: str = "a.png") -> Any:
        """What the page calls an uploaded file; the status where it is refused."""
        answer = self.http.post("/gradio_api/upload", files={"files": (name, content)})
        return answer.status_code if answer.is_error else self.file(answer.json()[0])

    @staticmethod
    def file(path: str) -> dict[str, Any]:
        return {"path": path, "meta": {"_type": "gradio.FileData"}}

    def take_example(self, number: int) -> None:
        """Click on an example."""
        event = next(one for one in self.config["dependencies"] if one["api_name"] == "load_example")
        body = {"data": [number], "fn_index": event["id"], "session_hash": self.session}
        self.http.post("/gradio_api/run/predict", json=body).raise_for_status()

    def ask(self, picture: Any, question: str = "What color is the square?", methods: Any = METHODS) -> list[Any]:
        """Outputs of the event behind "Ask", message by message; the last one is the end."""
        data = [picture, None, question, list(methods), 30, None]
        body = {"data": data, "fn_index": self.event(6), "session_hash": self.session}
        self.http.post("/gradio_api/queue/join", json=body).raise_for_status()
        found = []
        with self.http.stream("GET", "/gradio_api/queue/data", params={"session_hash": self.session}) as stream:
            for line in stream.iter_lines():
                event = json.loads(line[5:]) if line.startswith("data:") else {"msg": ""}
                if event["msg"].startswith("process_") and "output" in event:
                    found.append(event["output"])
                if event["msg"] in ("process_completed", "unexpected_error"):
                    break
        return found


@contextmanager
def free_port() -> Iterator[int]:
    """A port that nobody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        yield held.getsockname()[1]


def answers(port: int) -> bool:
    """Whether something listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
