"""Every refusal: the status, OpenAI's error object, the parameter by name, and nothing of the inside."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from duet.serve import fetch
from duet.serve.fetch import Fetcher
from duet.serve.limits import Limits
from tests.duet.serve.server import KEY, NAME, Running, asked, data_url, message, running

LIMITS = Limits(
    body=200_000, medium=100_000, media=3, pixels=40_000, text=500, messages=5, new_tokens=100, side=10_000, redirects=1
)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(limits=LIMITS) as server:
        yield server


def refused(server: Running, **options: Any) -> Any:
    """The error of a request, as the official client raises it."""
    from openai import APIStatusError

    given = {"model": NAME, "messages": [message("Is it dark?")], **options}
    extra = {name: given.pop(name) for name in list(given) if name not in OFFICIAL}
    with pytest.raises(APIStatusError) as error:
        server.client().chat.completions.create(**given, extra_body=extra)
    assert set(error.value.body) == {"message", "type", "param", "code"}
    assert not any(inside in str(error.value) for inside in ("Traceback", 'File "', "duet/", ".py", str(Path.cwd())))
    return error.value


OFFICIAL = {"model", "messages", "temperature", "top_p", "max_tokens", "seed", "stop", "stream", "n", "tools"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("n", 2),
        ("logprobs", True),
        ("top_logprobs", 3),
        ("frequency_penalty", 0.5),
        ("presence_penalty", -1),
        ("logit_bias", {"50256": -100}),
        ("tools", [TOOL]),
        ("tool_choice", "auto"),
        ("parallel_tool_calls", True),
        ("functions", [{"name": "f"}]),
        ("function_call", "auto"),
        ("response_format", {"type": "json_object"}),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "alloy", "format": "wav"}),
        ("prediction", {"type": "content", "content": "x"}),
        ("reasoning_effort", "low"),
        ("verbosity", "low"),
        ("web_search_options", {}),
        ("service_tier", "flex"),
        ("store", True),
        ("metadata", {"a": "b"}),
        ("top_k", 50),
        ("repetition_penalty", 1.1),
        ("best_of", 2),
        ("user", 5),
    ],
)
def test_parameters_that_are_not_served(server: Running, param: str, value: Any) -> None:
    error = refused(server, **{param: value})
    assert error.status_code == 400 and error.param == param and error.code == "unsupported_parameter"
    assert error.body["message"].startswith(f"{param}: ") and error.type == "invalid_request_error"


def test_values_that_ask_for_nothing_are_taken(server: Running) -> None:
    neutral = {
        "n": 1, "logprobs": False, "frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": None, "tools": [],
        "tool_choice": "none", "response_format": {"type": "text"}, "stream": False, "user": "me", "store": False,
        "temperature": None, "stop": None, "service_tier": "auto", "modalities": ["text"],
    }  # fmt: skip
    create = server.client().chat.completions.create
    plain = create(model=NAME, messages=[message("Is it dark?")])
    assert create(model=NAME, messages=[message("Is it dark?")], extra_body=neutral).choices == plain.choices


@pytest.mark.parametrize(
    ("options", "param", "part"),
    [
        ({"temperature": -1}, "temperature", "greater than or equal to 0"),
        ({"temperature": 2.5}, "temperature", "less than or equal to 2"),
        ({"temperature": "hot"}, "temperature", "valid number"),
        ({"top_p": 0}, "top_p", "greater than 0"),
        ({"top_p": 1.1}, "top_p", "less than or equal to 1"),
        ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ({"max_tokens": 101}, "max_tokens", "the limit is 100"),
        ({"max_completion_tokens": 101}, "max_completion_tokens", "the limit is 100"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens", "contradicts"),
        ({"max_tokens": 1.5}, "max_tokens", "valid integer"),
        ({"seed": "x"}, "seed", "valid integer"),
        ({"stop": ["a"] * 5}, "stop", "at most 4"),
        ({"stop": ""}, "stop[0]", "at least 1"),
        ({"stop": [3]}, "stop[0]", "valid string"),
        ({"stream": "yes"}, "stream", "valid boolean"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "without stream"),
        ({"stream_options": {"chunk": 1}, "stream": True}, "stream_options.chunk", "no such parameter"),
        ({"duet": {"budget": "llava15_64"}}, "duet.budget", "choose one of mini_third, mini_ninth, none"),
        ({"duet": {"method": "visionzip"}}, "duet.method", "no such parameter"),
        ({"duet": "mini_third"}, "duet", "should be"),
        ({"model": 5}, "model", "valid string"),
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": "hello"}, "messages", "valid list"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role", "'system'"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "required"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content", "at least 1"),
        ({"messages": [{"role": "user", "content": "x", "name": "me"}]}, "messages[0].name", "no such parameter"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages", "in turns, user last"),
        ({"messages": [message("a"), message("b")]}, "messages", "in turns, user last"),
        ({"messages": [message("a"), {"role": "system", "content": "b"}]}, "messages", "in turns"),
        ({"messages": [{"role": "system", "content": "b"}]}, "messages", "in turns"),
        ({"messages": [message("a"), {"role": "assistant", "content": "b"}] * 3}, "messages", "the limit is 5"),
        ({"messages": [message("x" * 501)]}, "messages", "501 characters of text; the limit is 500"),
        ({"messages": [message("?", *[Image.new("RGB", (8, 8))] * 4)]}, "messages", "4 pictures and videos; the limit"),
        ({"messages": [message("<image> who?")]}, "messages[0].content[0]", "marker of the prompt format"),
        ({"messages": [message("who?</s>")]}, "messages[0].content[0]", "marker of the prompt format"),
    ],
)  # fmt: skip
def test_what_does_not_fit(server: Running, options: dict[str, Any], param: str, part: str) -> None:
    error = refused(server, **options)
    assert error.status_code == 400 and error.param == param and part in error.body["message"]


def part_of(kind: str, url: Any, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": kind, kind: {"url": url, **more}}]}]}


def png(width: int, height: int) -> bytes:
    """A picture that is large, in a file that is small: the header, and rows of zeros."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(min((width // 8 + 1) * height, 1 << 20)), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def file(form: str, size: tuple[int, int] = (60, 60), **options: Any) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", size, "red").save(content, form, **options)
    return content.getvalue()


def encoded(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


FRAMES = [Image.new("RGB", (60, 60), color) for color in ("red", "blue", "green")]
WEBP = file("WEBP")
BAD_PICTURES = {
    "a path": ("/etc/passwd", "data URLs only"),
    "a file address": ("file:///etc/passwd", "data URLs only"),
    "an address": ("https://example.com/a.png", "data URLs only"),
    "no base64": ("data:image/png;base64,####", "not valid base64"),
    "an address in no base64": ("data:image/png,rawbytes", "must begin like"),
    "text": (encoded(b"hello"), "not a picture"),
    "nothing": (encoded(b""), "not a picture"),
    "TIFF": (encoded(file("TIFF"), "image/tiff"), "not a picture"),
    "BMP": (encoded(file("BMP")), "not a picture"),
    "PDF": (encoded(file("PDF")), "not a picture"),
    "EPS": (encoded(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "not a picture"),
    "SVG": (
        encoded(b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'),
        "not a picture",
    ),
    "a long picture": (encoded(png(10_001, 1)), "10001 x 1 pixels; the limit is 10000 along a side"),
    "a narrow picture": (encoded(png(8000, 2)), "narrower than 1:200"),
    "half a PNG": (encoded(file("PNG")[:60]), "damaged"),
    "half a WebP": (encoded(WEBP[: len(WEBP) // 2]), "damaged"),
    "a bomb": (encoded(png(30_000, 30_000)), "too many pixels; the limit is 0.04 megapixels"),
    "a large PNG": (encoded(png(8000, 8000)), "8000 x 8000 pixels are too many; the limit is 0.04 megapixels"),
    "a PNG just too large": (encoded(png(200, 201)), "200 x 201 pixels are too many"),
    "a large GIF": (encoded(file("GIF", (300, 300))), "too many"),
    "a WebP that claims to be large": (
        encoded(b"RIFF\x64\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xff\x3f\0\xff\x3f\0" + bytes(20)),
        "16384 x 16384 pixels; the limit",
    ),
    "too many bytes": (encoded(bytes(100_001)), "more than 0.0953674 MiB"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD_PICTURES)
def test_pictures_that_are_refused(server: Running, what: str) -> None:
    url, part = BAD_PICTURES[what]
    error = refused(server, **part_of("image_url", url))
    assert error.status_code == (413 if "bytes" in what else 400)
    assert error.param == "messages[0].content[0]" and part in error.body["message"]
    assert "etc" not in error.body["message"] and "example" not in error.body["message"]


def test_pixels_of_all_pictures_count(server: Running) -> None:
    large, small = Image.new("RGB", (180, 180)), Image.new("RGB", (80, 80))
    create = server.client().chat.completions.create
    assert create(model=NAME, messages=[message("?", large, small)]).usage.duet["visual_tokens"] == 200
    error = refused(server, messages=[message("?", large, small, small)])
    assert error.param == "messages[0].content[2]" and error.code == "too_many_pixels"


def test_an_animation_is_its_first_frame(server: Running) -> None:
    url = encoded(file("GIF", save_all=True, append_images=FRAMES * 5, loop=0), "image/gif")
    still = encoded(file("GIF"), "image/gif")
    create = server.client().chat.completions.create
    answers = [create(model=NAME, **part_of("image_url", u)).choices[0].message.content for u in (url, still)]
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("options", "param", "part"),
    [
        (part_of("image_url", data_url(FRAMES[0]), detail="low"), "messages[0].content[0].image_url.detail", "'high'"),
        (part_of("image_url", 5), "messages[0].content[0].image_url.url", "valid string"),
        (part_of("image_url", "x", extra=1), "messages[0].content[0].image_url.extra", "no such parameter"),
        (part_of("video_url", "data:video/mp4;base64,AAAA"), "messages[0].content[0]", "pictures only, no videos"),
        (part_of("input_audio", "x"), "messages[0].content[0]", "image_url"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content[0]", "type"),
        (
            {"messages": [{"role": "system", "content": message("a", FRAMES[0])["content"]}, message("b")]},
            "messages[0].content[0]",
            "only user messages",
        ),
    ],
)
def test_parts_that_are_refused(server: Running, options: dict[str, Any], param: str, part: str) -> None:
    error = refused(server, **options)
    assert error.status_code == 400 and error.param == param and part in error.body["message"]


def test_a_prompt_that_is_too_long() -> None:
    picture = Image.new("RGB", (8, 8))
    with running() as server:
        error = refused(server, messages=[message("?", *[picture] * 8)], max_tokens=300)
        assert error.code == "context_length_exceeded" and "1024 tokens of the model's context" in error.body["message"]
        server.client().chat.completions.create(model=NAME, messages=[message("?", *[picture] * 8)], max_tokens=100)


def test_addresses_of_allowed_domains(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server fetches where `--allow-domains` says; `test_fetch.py` has what it makes sure of."""
    picture = asked(1)[0]
    content = base64.b64decode(data_url(picture).split(",")[1])
    seen = []

    def read(self: Any, answer: Any, where: str) -> bytes:
        return content

    def connect(self: Any, target: Any, seconds: float) -> Any:
        seen.append(target)
        return Connection()

    class Connection:
        """Stands for one to the host."""

        sock = None

        def connect(self) -> None: ...

        def request(self, *args: Any, **options: Any) -> None: ...

        def getresponse(self) -> Any:
            return type("Answer", (), {"status": 200})

        def close(self) -> None: ...

    monkeypatch.setattr(fetch, "addresses_of", lambda host: ["93.184.215.14"])
    monkeypatch.setattr(Fetcher, "_by_tls", connect)
    monkeypatch.setattr(Fetcher, "_read", read)
    with running(domains=("good.example",)) as server:
        create = server.client().chat.completions.create
        text = {"type": "text", "text": "What is it?"}
        part = {"type": "image_url", "image_url": {"url": "https://good.example/a.png"}}
        answer = create(model=NAME, messages=[{"role": "user", "content": [part, text]}])
        expected = create(model=NAME, messages=[message("What is it?", picture)])
        assert answer.choices[0].message == expected.choices[0].message
        assert [(target.host, target.address) for target in seen] == [("good.example", "93.184.215.14")]
        error = refused(server, **part_of("image_url", "https://evil.example/a.png"))
        assert error.code == "bad_domain" and error.param == "messages[0].content[0]"
        assert refused(server, **part_of("image_url", "http://good.example/a.png")).code == "bad_address"
        assert len(seen) == 1


def test_another_model(server: Running) -> None:
    from openai import NotFoundError

    error = refused(server, model="gpt-5")
    assert isinstance(error, NotFoundError) and error.code == "model_not_found"
    with pytest.raises(NotFoundError):
        server.client().models.retrieve("gpt-5")


@pytest.mark.parametrize("key", ["", "x", KEY[:-1], KEY + "x", KEY.upper(), "ключ"])
def test_a_bad_key(server: Running, key: str) -> None:
    from openai import AuthenticationError

    for address in ("/v1/models", f"/v1/models/{NAME}", "/metrics"):
        assert server.get(address, key.encode().decode("latin-1"))[0] == 401
        assert server.get(address, None)[0] == 401
    if key.isascii() and key:
        with pytest.raises(AuthenticationError) as error:
            server.client(key).chat.completions.create(model=NAME, messages=[message("?")])
        assert error.value.code == "invalid_api_key" and error.value.response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_json"),
        (b"{", 400, "invalid_json"),
        (b"[]", 400, "invalid_json"),
        (b'"x"', 400, "invalid_json"),
        (b"\xff\xfe", 400, "invalid_json"),
        (b'{"temperature": NaN}', 400, "invalid_json"),
        (b"[" * 100_000, 400, "invalid_json"),
        (b'{"a":' * 30_000, 400, "invalid_json"),
        (b'{"max_tokens": ' + b"9" * 5000 + b"}", 400, "invalid_json"),
        (b" " * 200_001, 413, "too_large"),
    ],
)  # fmt: skip
def test_bodies_that_are_no_request(server: Running, body: bytes, status: int, code: str) -> None:
    assert server.post(body) == (status, code)


def test_a_body_of_unknown_length(server: Running) -> None:
    """Sent in chunks: it is not announced, but counted."""
    assert server.post(iter([b" " * 60_000] * 4)) == (413, "too_large")


@pytest.mark.parametrize(
    ("address", "status"),
    [("/", 404), ("/docs", 404), ("/openapi.json", 404), ("/v1/chat/completions", 405), ("/v1", 404)],
)
def test_other_addresses(server: Running, address: str, status: int) -> None:
    found, text = server.get(address)
    assert found == status and set(json.loads(text)["error"]) == {"message", "type", "param", "code"}


def test_errors_of_the_server_show_nothing(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("a secret of the server")

    monkeypatch.setattr(server.service.preparing, "encode", fail)
    error = refused(server, messages=[message("?", asked(0)[0])])
    assert error.status_code == 500 and "secret" not in str(error.body) and error.code == "internal_error"
