"""A server on a real port of this machine, in a thread of the tests."""

from __future__ import annotations

import base64
import http.client
import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import duet
from duet.budget import Budget
from playground.mini.draw import draw
from playground.mini.questions import Question, color_of, existence, scene_is
from playground.mini.world import rng, sample_scene
from tests.named import named
from tests.small_world import random_model

KEY = "a-key-of-the-tests"
NAME = "mini"
CHECKPOINT = str(Path(__file__).parents[3] / "playground" / "mini" / "checkpoints" / "llava-mini")

for library in ("fastapi", "uvicorn", "prometheus_client", "openai"):
    pytest.importorskip(library, reason=f"{library} is not installed: pip install -e .[dev]")


@cache
def served() -> Any:
    """The small world's model; one for all servers, because only one of them runs at a time."""
    from duet.serve.model import Served, Setting

    model, processor = duet.load(CHECKPOINT, device="cpu")
    settings = {
        "mini_third": Setting("duet", lambda _: named("mini_third")),
        "mini_ninth": Setting("duet", lambda _: named("mini_ninth")),
        "none": Setting("none"),
    }
    return Served(model, processor, settings)


@cache
def babbling() -> Any:
    """An untrained model, which does not find an end, and whose tokens are often no whole characters."""
    from duet.serve.model import Served, Setting

    model, processor = duet.load(random_model(), device="cpu")
    return Served(model, processor, {"third": Setting("duet", lambda _: Budget(30, 4, layers=(2, 3), ratios=(0.5, 0)))})


@cache
def asked(number: int) -> tuple[Image.Image, Question]:
    """A picture of the small world and a question about it, always the same for a number."""
    random = rng(0, "serve", number)
    while True:
        scene = sample_scene(random)
        for maker in (color_of, existence, scene_is)[number % 3 :]:
            question = maker(scene, random)
            if question is not None:
                return Image.fromarray(draw(scene)), question


def data_url(picture: Image.Image, form: str = "PNG") -> str:
    """The picture as clients send it."""
    content = io.BytesIO()
    picture.save(content, form)
    return f"data:image/{form.lower()};base64,{base64.b64encode(content.getvalue()).decode()}"


def message(text: str, *pictures: Image.Image) -> dict[str, Any]:
    """A user's message, pictures in front."""
    parts = [{"type": "image_url", "image_url": {"url": data_url(picture)}} for picture in pictures]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


@cache
def lonely(budget: str) -> Any:
    """A separate model, with only this budget."""
    return duet.load(CHECKPOINT, device="cpu", **({} if budget == "none" else {"method": "duet", "budget": budget}))


def alone(text: str, *pictures: Image.Image, budget: str = "mini_third", most: int = 16) -> str:
    """What `duet ask` answers."""
    from duet.inference import ask

    return ask(*lonely(budget), pictures, text, max_new_tokens=most).text


class Running:
    """A server that runs, and clients for it."""

    def __init__(self, port: int, server: Any) -> None:
        self.port, self.server, self.service = port, server, server.config.app.state.service
        self.url = f"http://127.0.0.1:{port}/v1"

    def client(self, key: str = KEY, **options: Any) -> Any:
        from openai import OpenAI

        return OpenAI(base_url=self.url, api_key=key, max_retries=0, timeout=60, **options)

    def get(self, path: str, key: str | None = KEY) -> tuple[int, str]:
        """Status and text of an address."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    def post(self, body: Any) -> tuple[int, str]:
        """Status and error code of a request with this body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        options = {"encode_chunked": not isinstance(body, bytes)}
        with suppress(BrokenPipeError, ConnectionResetError):  # refused before all of it was sent
            connection.request("POST", "/v1/chat/completions", body, headers, **options)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())["error"]["code"]

    def async_client(self, **options: Any) -> Any:
        from openai import AsyncOpenAI

        return AsyncOpenAI(base_url=self.url, api_key=KEY, max_retries=0, timeout=120, **options)


@contextmanager
def running(model: Any = None, **setup: Any) -> Iterator[Running]:
    """A server until the end of the block."""
    from duet.serve.app import Setup
    from duet.serve.keys import Keys
    from duet.serve.server import bind, make_server

    sock = bind("127.0.0.1", 0)
    settings = {"served": model or served(), "name": NAME, "keys": Keys([KEY]), "grace": 10, **setup}
    server = make_server(Setup(**settings))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    try:
        yield Running(sock.getsockname()[1], server)
    finally:
        server.should_exit = True
        thread.join(30)
        sock.close()
        assert not thread.is_alive(), "the server did not end"
