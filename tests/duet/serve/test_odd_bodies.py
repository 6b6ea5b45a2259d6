"""Bodies that are JSON and yet no request: wrong types, half characters, markers cut in two, too many values."""

from __future__ import annotations

import http.client
import json
import socket
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from duet.serve.errors import ApiError
from duet.serve.limits import Limits
from duet.serve.schema import Body, read_request
from tests.duet.serve.server import KEY, NAME, Running, message, running


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as server:
        yield server


def error_of(**options: Any) -> ApiError:
    body = {"model": NAME, "messages": [{"role": "user", "content": "?"}], **options}
    with pytest.raises(ApiError) as error:
        read_request(json.dumps(body).encode(), Limits())
    return error.value


#: Parameter -> JSON types that it takes; a number that is no fraction is an integer.
TYPES = {
    "model": str, "messages": list, "temperature": (int, float), "top_p": (int, float), "max_tokens": int,
    "max_completion_tokens": int, "seed": int, "stop": (str, list), "stream": bool, "stream_options": dict,
    "duet": dict,
}  # fmt: skip
VALUES = ["0.5", True, 0.5, 1, [], ["x"], {}, {"x": 1}]


def test_the_table_has_every_parameter() -> None:
    assert set(TYPES) == set(Body.model_fields)


@pytest.mark.parametrize("name", TYPES)
def test_wrong_types(name: str) -> None:
    kinds = TYPES[name] if isinstance(TYPES[name], tuple) else (TYPES[name],)
    for value in VALUES:
        if type(value) in kinds:
            continue
        error = error_of(**{name: value})
        assert (error.status, error.param) == (400, name), value
        assert error.message.startswith(f"{name}: should be") and "instance of" not in error.message


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (5, "content: should be a string or a list of parts"),
        (None, "content: should be a string or a list of parts"),
        (["x"], "content[0]: should be an object"),
        ([{"text": "x"}], "content[0]: type is required"),
        ([{"type": "input_image"}], "content[0]: type should be 'text', 'image_url' or 'video_url'"),
        ([{"type": "image_url", "image_url": "x"}], "image_url: should be an object"),
        ([{"type": "text"}], "text: is required"),
    ],
)
def test_contents(content: Any, part: str) -> None:
    assert part in error_of(messages=[{"role": "user", "content": content}]).message


@pytest.mark.parametrize("message", ["x", None, [], 5])
def test_messages_that_are_no_objects(message: Any) -> None:
    assert error_of(messages=[message]).message == "messages[0]: should be an object"


def test_names_of_any_length_are_cut() -> None:
    for options in ({"x" * 5000: 1}, {"duet": {"x" * 5000: 1}}, {"messages": [{"role": "user", "x" * 5000: 1}]}):
        error = error_of(**options)
        assert len(error.message) < 300 and len(error.param or "") <= 100


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "mini", "messages": [{"role": "user", "content": "hi \\ud800"}]}',
        b'{"model": "mini", "messages": [{"role": "user", "content": "hi"}], "\\uDFFF": 1}',
        b'{"model": "\\ud800", "messages": [{"role": "user", "content": "hi"}]}',
        '{"model": "mini", "messages": [{"role": "user", "content": "hi"}]}'.encode("utf-16"),
    ],
)
def test_half_characters_and_other_encodings(server: Running, body: bytes) -> None:
    assert server.post(body) == (400, "invalid_json")


def test_characters_outside_the_basic_plane(server: Running) -> None:
    body = rb'{"model": "mini", "messages": [{"role": "user", "content": "\ud83d\ude00 \u0000 \u05d0"}]}'
    assert read_request(body, Limits()).messages[0].content[0].text == "\U0001f600 \0 \u05d0"  # type: ignore[union-attr]


@pytest.mark.parametrize("parts", [("<ima", "ge> what?"), ("what? <", "/s> more"), ("a", "<", "image", ">")])
@pytest.mark.parametrize("role", ["system", "user"])
def test_markers_that_are_cut_in_two(server: Running, role: str, parts: tuple[str, ...]) -> None:
    from openai import BadRequestError

    cut = {"role": role, "content": [{"type": "text", "text": text} for text in parts]}
    messages = [cut] if role == "user" else [cut, message("?")]
    with pytest.raises(BadRequestError, match="marker of the prompt format") as error:
        server.client().chat.completions.create(model=NAME, messages=messages)
    assert error.value.param == "messages[0].content"


def test_many_values_take_no_memory() -> None:
    body = b'{"messages": [' + b"[]," * 1_000_000 + b"[]]}"
    tracemalloc.start()
    with pytest.raises(ApiError, match="too many values"):
        read_request(body, Limits())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_a_long_text_is_no_mass_of_values() -> None:
    text = "," * 30_000
    body = json.dumps({"model": NAME, "messages": [{"role": "user", "content": text}] * 1}).encode()
    assert read_request(body, Limits()).messages[0].content[0].text == text  # type: ignore[union-attr]


def test_an_answer_goes_back_as_the_client_has_it(server: Running) -> None:
    """`messages.append(answer.choices[0].message)`, as in OpenAI's guides, and the whole message as a dictionary."""
    create = server.client().chat.completions.create
    first = message("Is it dark?")
    answer = create(model=NAME, messages=[first]).choices[0].message
    more = {"role": "user", "content": "Is there a ring?"}
    plain = create(model=NAME, messages=[first, {"role": "assistant", "content": answer.content}, more])
    for again in (answer, {**answer.model_dump(), "tool_calls": None, "annotations": []}):
        assert create(model=NAME, messages=[first, again, more]).choices == plain.choices
    error = error_of(messages=[first, {**answer.model_dump(), "tool_calls": [{"id": "x"}]}, more])
    assert error.param == "messages[1].tool_calls"
    assert error_of(messages=[{**first, "refusal": None}]).param == "messages[0].refusal"


def test_no_redirects(server: Running) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    headers = {"Authorization": f"Bearer {KEY}", "Host": "evil.example"}
    connection.request("POST", "/v1/chat/completions/", b"{}", headers)
    answer = connection.getresponse()
    assert answer.status == 404 and answer.getheader("location") is None


def test_long_headers_are_cut_off(server: Running) -> None:
    """From clients without a key, too: they would fill the memory."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nX: ")
        with suppress(OSError):
            for _ in range(50):
                connection.sendall(b"a" * 10_000)
        with suppress(ConnectionResetError):
            assert connection.recv(100).startswith(b"HTTP/1.1 4")
