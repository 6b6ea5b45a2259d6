"""What docs/serve.md shows runs as it stands there, but for the port; and its numbers are those of the code."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from duet.serve.limits import MEGA, Limits
from duet.serve.metrics import Metrics
from duet.serve.schema import IDENTIFIERS, NEUTRAL, Body
from tests.duet.serve.server import KEY, Running, asked, running

PAGE = (Path(__file__).parents[3] / "docs" / "serve.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """With a picture beside it."""
    monkeypatch.setenv("DUET_API_KEY", KEY)
    with running(name="llava-mini") as server:
        monkeypatch.chdir(tmp_path)
        asked(0)[0].save("photo.png")
        yield server


def test_python(server: Running, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = [code for kind, code in BLOCKS if kind == "python"]
    names: dict = {}
    for code in blocks:
        exec(code.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}"), names)
    printed = capsys.readouterr().out
    assert len(blocks) == 2 and "'visual_tokens': 100" in printed
    assert names["answer"].usage.duet["budget"] == "none"


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_curl(server: Running) -> None:
    (command,) = [code for kind, code in BLOCKS if kind == "bash" and "curl" in code]
    command = command.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert '"finish_reason":"stop"' in run.stdout


def test_every_parameter_is_on_the_page() -> None:
    names = {*Body.model_fields, *NEUTRAL, *IDENTIFIERS} - {"duet", "stream_options"}
    assert not {name for name in names if f"`{name}`" not in PAGE}


def test_every_metric_is_on_the_page() -> None:
    for family in Metrics(lambda: 0).registry.collect():
        assert f"`{family.name}" in PAGE, family.name


def test_limits_are_those_of_the_page() -> None:
    limits = Limits()
    for text in (
        f"`--max-body-mib` ({limits.body // MEGA})",
        f"`--max-media-mib` ({limits.medium // MEGA})",
        f"`--max-megapixels` ({limits.pixels // 10**6})",
        f"`--max-side` ({limits.side})",
        f"`--max-frames` ({limits.frames})",
        f"`--max-video-frames` ({limits.video:,})",
        f"`--max-queue` ({limits.queue})",
        f"`--max-wait` ({limits.wait} s)",
        f"`--timeout` ({limits.timeout} s)",
        f"`--max-new-tokens` ({limits.new_tokens})",
        f"up to {limits.redirects}, each",
        f"{limits.fetch} s and",
        f"{limits.upload} s for a body",
        f"{limits.decode} s of decoding",
    ):
        assert text in PAGE
