"""The page over HTTP, as a visitor may misuse it: files, addresses, sizes, names; nothing of the inside comes out."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from PIL import Image

from tests.duet.demo.pages import Visitor, open_page, small_demo


@pytest.fixture(scope="module")
def visitor() -> Iterator[Visitor]:
    with open_page(small_demo()) as address:
        yield Visitor(address)


def png() -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (80, 80), "red").save(content, "PNG")
    return content.getvalue()


def test_a_question_is_answered(visitor: Visitor) -> None:
    outputs = visitor.ask(visitor.upload(png()))
    assert len(outputs) > 4  # streamed
    assert outputs[-1].get("error") is None
    assert "visual tokens" in str(outputs) and "stage 1" in str(outputs)


def test_an_example_leaves_the_guard_in_place() -> None:
    """gradio makes the inputs anew for a visitor whose page has set one of them."""
    from duet.demo.examples import small_world

    with open_page(small_demo(), small_world()) as address:
        visitor = Visitor(address)
        visitor.take_example(1)
        assert "addresses are not fetched" in visitor.ask(visitor.file("http://127.0.0.1:9/a.png"))[-1]["error"]
        assert "not a picture" in visitor.ask(visitor.upload(b"nothing"))[-1]["error"]


@pytest.mark.parametrize("path", ["/etc/passwd", "README.md", "playground/mini/checkpoints/llava-mini/config.json"])
def test_no_file_of_the_machine(visitor: Visitor, path: str) -> None:
    assert visitor.http.get(f"/gradio_api/file={path}").status_code in (403, 404)
    assert visitor.ask(visitor.file(path))[-1] == {"error": None}


def test_no_address_is_fetched(visitor: Visitor) -> None:
    import http.server
    import threading

    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/a.png"
    assert "addresses are not fetched" in visitor.ask(visitor.file(address))[-1]["error"]
    for given in (visitor.file(address.replace("http", "HTTP")), {**visitor.file(""), "url": address}):
        assert visitor.ask(given)[-1] == {"error": None}
    server.shutdown()
    server.server_close()
    assert not asked


def test_refusals_are_told_in_a_sentence(visitor: Visitor) -> None:
    assert visitor.upload(b"x" * (17 << 20)) == 413
    picture = visitor.upload(png())
    for outputs, message in (
        (visitor.ask(visitor.upload(b"nothing")), "not a picture"),
        (visitor.ask(None), "upload a picture"),
        (visitor.ask(picture, " "), "ask a question"),
        (visitor.ask(picture, methods=["visionzip", "random", "uniform", "pool"]), "at most 3"),
    ):
        assert message in outputs[-1]["error"]
        assert "/" not in outputs[-1]["error"].replace("PNG, JPEG, WEBP, GIF", "")


def test_words_of_visitors_are_no_markup() -> None:
    from duet.demo.costs import Cost
    from duet.demo.markup import Shown, answers_html, costs_html, kept_html
    from duet.demo.model import Pane

    evil = "<img src=x onerror=alert(1)>"
    cost = Cost(evil, None, problem=evil)
    made = answers_html([Pane(cost, "failed", problem=evil), Pane(cost, "running", text=evil)])
    made += costs_html([cost]) + kept_html([Shown(evil, 1, [], [(evil, True), (evil, False)])])
    assert "<img" not in made and "&lt;img" in made


def test_nothing_is_listed_or_shared(visitor: Visitor) -> None:
    config = visitor.config
    assert not config["analytics_enabled"] and not config["run_history"] and not config["footer_links"]
    assert visitor.http.get("/gradio_api/info").json()["named_endpoints"] == {}
    assert visitor.http.get("/gradio_api/file=/proc/self/environ").status_code == 403
