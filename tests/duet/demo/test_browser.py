"""The page in a real Chromium: `bash scripts/browser.sh`. `DUET_SHOTS=folder` keeps pictures of what was seen."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests import golden_video
from tests.duet.demo.pages import open_page, small_demo

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: bash scripts/browser.sh")

CHROMIUM = os.environ.get("DUET_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
SHOTS = os.environ.get("DUET_SHOTS")
#: Milliseconds.
PATIENCE = 240_000
DONE = "document.querySelectorAll('#answers .done').length == {} && document.querySelectorAll('#words figure').length"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium: bash scripts/browser.sh, or set DUET_CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    from duet.demo.examples import small_world

    with open_page(small_demo(), small_world()) as found:
        yield found


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    with visit(browser, address) as found:
        yield found


class visit:
    """A page in a window of its own; at the end nothing was asked of another host, and no script has failed."""

    def __init__(self, browser: Any, address: str) -> None:
        self.page, self.address = browser.new_page(viewport={"width": 1400, "height": 1000}), address
        self.strangers: list[str] = []
        self.faults: list[str] = []

    def __enter__(self) -> Any:
        self.page.set_default_timeout(PATIENCE)
        self.page.on("request", lambda request: self._look(request.url))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.faults.append(dialog.message), dialog.dismiss()))
        self.page.goto(self.address)
        self.page.wait_for_selector("#ask")
        self.page.wait_for_selector("#costs svg")
        return self.page

    def __exit__(self, *_: Any) -> None:
        self.page.close()
        assert not self.strangers and not self.faults

    def _look(self, url: str) -> None:
        if not url.startswith((self.address, "data:", "blob:")):
            self.strangers.append(url)


def ask(page: Any, question: str | None = None, sides: int = 3) -> list[str]:
    """Answers, side by side."""
    if question is not None:
        page.fill("#question textarea", question)
    page.click("#ask")
    page.wait_for_function(DONE.format(sides))
    return page.locator("#answers .answer").all_inner_texts()


def test_ask_and_look(page: Any) -> None:
    answers = ask(page)
    assert answers[0] == answers[1] == "yak"
    assert page.locator("#answers .verdict").all_inner_texts() == ["same answer", "different answer"]
    titles = page.locator("#kept figcaption b").all_inner_texts()
    assert [title for title in titles if "→" in title] == [
        "stage 1: 100 patches → 35 tokens",
        "after layer 4: 35 → 17 tokens",
        "after layer 6: 17 → 0 tokens",
        "stage 1: 100 patches → 22 tokens",
    ]
    assert {"What", "word", "written"} <= set(page.locator("#words figcaption b").all_inner_texts())
    assert page.locator("#kept mark").count() > 4
    if SHOTS:
        page.wait_for_timeout(500)  # toasts and transitions
        page.screenshot(path=str(Path(SHOTS, "demo.png")), full_page=True)


def test_the_slider_says_what_it_would_cost(page: Any) -> None:
    ask(page)
    before = page.locator("#answers").inner_text()
    page.fill("#average input[type=number]", "40")
    page.press("#average input[type=number]", "Enter")
    page.wait_for_function("document.querySelector('#costs').innerText.includes('40 %')")
    page.fill("#average input[type=number]", "95")
    page.press("#average input[type=number]", "Enter")
    page.wait_for_function("document.querySelector('#costs').innerText.includes('cannot be reached')")
    assert page.locator("#answers").inner_text() == before  # nothing ran


def test_an_example_is_taken_over(page: Any) -> None:
    page.locator("#examples tbody tr").nth(1).click()
    page.wait_for_function("document.querySelector('#question textarea').value == 'Describe the top left.'")
    assert ask(page) == ["top left large red cross"] * 3


def test_methods_are_chosen(page: Any) -> None:
    page.click("#methods input")
    page.locator("#methods ul [role=option]", has_text="pyramiddrop").first.click()
    page.wait_for_function("document.querySelectorAll('#costs tbody tr').length == 4")
    page.keyboard.press("Escape")
    assert len(ask(page, sides=4)) == 4


def test_a_picture_is_uploaded(page: Any, tmp_path: Path) -> None:
    Image.new("RGB", (300, 100), "white").save(tmp_path / "white.png")
    page.locator("#picture button[aria-label*=Clear], #picture button[aria-label*=Remove]").first.click()
    page.set_input_files("#picture input[type=file]", tmp_path / "white.png")
    page.wait_for_selector("#picture img")
    ask(page, "What color is it?")
    assert "300 x 100 pixels" in page.locator("#kept figcaption").first.inner_text()


def test_what_is_no_picture_is_told_in_a_sentence(page: Any, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"nothing")
    page.locator("#picture button[aria-label*=Clear], #picture button[aria-label*=Remove]").first.click()
    page.set_input_files("#picture input[type=file]", tmp_path / "a.png")
    page.wait_for_selector("text=not a picture (PNG, JPEG, WEBP, GIF), or damaged")
    page.fill("#question textarea", "")
    page.click("#ask")


def test_words_run_no_script(page: Any) -> None:
    ask(page, "<img src=x onerror=alert(1)> ${alert(2)} {{alert(3)}} <script>alert(4)</script>?")
    assert "<img src=x onerror=alert(1)>" in page.locator("#kept .question").first.inner_text()
    assert page.locator("#kept img, #answers img, #kept script").count() == 0


def test_stop(browser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text comes while the model runs; the button ends it, and the next question is answered."""
    demo = small_demo()
    run = demo.run_side

    def slowly(cost: Any, question: Any, on_token: Any) -> Any:
        def wait(token: int) -> None:
            time.sleep(1)
            on_token(token)

        return run(cost, question, wait)

    from duet.demo.examples import small_world

    with open_page(demo, small_world()) as address, visit(browser, address) as page:
        monkeypatch.setattr(demo, "run_side", slowly)
        page.locator("#examples tbody tr").nth(1).click()
        page.wait_for_function("document.querySelector('#question textarea').value == 'Describe the top left.'")
        page.click("#ask")
        page.wait_for_function("document.querySelector('#answers .running .answer')?.innerText == 'top left'")
        page.click("#stop")
        monkeypatch.setattr(demo, "run_side", run)
        begin = time.monotonic()
        assert demo.weights.acquire(timeout=10) and time.monotonic() - begin < 5
        demo.weights.release()
        assert ask(page, "What word is written in the image?")[0] == "rug"


def write_film(path: Path) -> Path:
    """Twelve frames, two seconds."""
    av = pytest.importorskip("av", reason="av is not installed: pip install -e .[demo]")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=6)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        for level in range(0, 240, 20):
            frame = av.VideoFrame.from_image(Image.new("RGB", (96, 64), (level, 90, 240 - level)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_a_video(browser: Any, tmp_path: Path) -> None:
    import duet
    from duet.demo.model import Demo

    film = write_film(tmp_path / "film.mp4")
    demo = Demo(*duet.load(str(golden_video.HF), device="cpu"), "video", small_demo().limits)
    with open_page(demo) as address, visit(browser, address) as page:
        page.set_input_files("#video input[type=file]", film)
        page.wait_for_selector("#video video")
        page.wait_for_function("document.querySelector('#average').innerText.includes('2056')")
        assert len(ask(page, "What is it?")) == 3
        assert page.locator("#kept svg").first.locator("image").count() >= 8
