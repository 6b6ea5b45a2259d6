"""The command: flags, refusals before the model is loaded, and stopping the server."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

import pytest

from duet.budget import Backbone, Budget, find_row
from duet.cli import serve
from duet.cli.main import main
from duet.errors import UserError
from duet.serve.limits import MEGA, Limits

for library in ("fastapi", "uvicorn", "prometheus_client"):
    pytest.importorskip(library, reason=f"{library} is not installed: pip install -e .[dev]")

ROOT = Path(__file__).parents[3]
MINI = ROOT / "playground" / "mini" / "checkpoints" / "llava-mini"


def parsed(*words: str) -> Namespace:
    parser = ArgumentParser()
    serve.add_arguments(parser)
    return parser.parse_args(words)


def test_flags_and_limits_have_the_same_defaults() -> None:
    assert serve.make_limits(parsed()) == Limits()


def test_every_limit_has_a_flag() -> None:
    words = "--max-body-mib 2 --max-media-mib 1 --max-media 3 --max-megapixels 4 --max-side 5 --max-frames 6 "
    words += "--max-video-frames 7 --max-text 8 --max-new-tokens 9 --max-queue 10 --max-wait 11 --timeout 12"
    limits = serve.make_limits(parsed(*words.split()))
    assert (limits.body, limits.medium) == (2 * MEGA, MEGA) and limits.pixels == 4_000_000
    rest = ("media", "side", "frames", "video", "text", "new_tokens", "queue", "wait", "timeout")
    assert [getattr(limits, name) for name in rest] == [3, 5, 6, 7, 8, 9, 10, 11, 12]


@pytest.mark.parametrize(
    ("words", "names", "own"),
    [
        ("--budget mini_third", ["mini_third"], 33),
        ("--average 22", ["22"], 22),
        ("--dominant 20 --contextual 4 --layers 4,6 --ratios 0.5,0", ["default"], 15),
        ("", ["default"], 22),
        ("--budget mini_third --allow-budgets mini_ninth,20,none", ["mini_third", "mini_ninth", "20", "none"], 33),
        ("--method visionzip --budget mini_third", ["mini_third"], 33),
    ],
)
def test_budgets(words: str, names: list[str], own: float) -> None:
    found = serve.settings(parsed(*words.split()), MINI)
    assert list(found) == names
    first = found[names[0]]
    assert first.solve is not None
    backbone = Backbone.from_config(MINI)
    assert first.solve((100,)).average(backbone) == pytest.approx(own, abs=0.6)
    for name in names[1:]:
        solve = found[name].solve
        if name == "none":
            assert solve is None and found[name].method == "none"
        else:
            target = float(name) if name.isdecimal() else find_row(name).target
            assert solve is not None and solve((100,)).average(backbone) == pytest.approx(target, abs=0.6)


def test_averages_are_of_the_whole_prompt() -> None:
    """As `duet ask` counts: two pictures share what one may have."""
    solve = serve.settings(parsed("--average", "30"), MINI)["30"].solve
    assert solve is not None
    one, two = solve((100,)), solve((100, 100))
    assert isinstance(one, Budget) and one.stage1 and two.stage1 and two.stage1.dominant < one.stage1.dominant


def test_without_compression() -> None:
    assert list(serve.settings(parsed("--method", "none"), MINI)) == ["none"]
    with pytest.raises(UserError, match="keeps all tokens"):
        serve.settings(parsed("--method", "none", "--allow-budgets", "20"), MINI)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--port 0 --budget nothing", "unknown budget 'nothing'"),
        ("--port 0 --allow-budgets nothing", "unknown budget 'nothing'"),
        ("--port 0 --allow-budgets 500", "500"),
        ("--method nothing", "unknown method 'nothing'"),
        ("--budget mini_third --average 3", "contradict each other"),
        ("--host 0.0.0.0", "open to others: set DUET_API_KEY"),
        ("--host 192.0.2.1 --api-key-file {keys}", "cannot listen on 192.0.2.1:8000"),
        ("--api-key-file nothing", "cannot be read"),
        ("--port 70000", "not a port"),
        ("--max-queue 0", "at least 1"),
        ("--timeout 0", "above 0"),
        ("--port 0 --device nothing", "not a device"),
    ],
)
def test_mistakes(
    words: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DUET_API_KEY", raising=False)
    monkeypatch.setattr("duet.serve.server.serve", lambda *_: pytest.fail("it serves"))
    keys = tmp_path / "keys"
    keys.write_text("a-key")
    try:
        code = main(["serve", str(MINI), *words.format(keys=keys).split()])
    except SystemExit as end:
        code = end.code
    assert code == 2 and message in capsys.readouterr().err


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    from duet.serve.server import bind

    with bind("127.0.0.1", 0) as sock:
        sock.listen()
        port = str(sock.getsockname()[1])
        assert main(["serve", str(MINI), "--port", port]) == 2
    assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err


def test_clients_are_refused_while_the_model_is_loaded() -> None:
    from duet.serve.server import bind

    with bind("127.0.0.1", 0) as sock, pytest.raises(ConnectionRefusedError):
        socket.create_connection(sock.getsockname())


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("duet.extras.find_spec", lambda name: None if name == "uvicorn" else object())
    assert main(["serve", str(MINI)]) == 2
    assert 'duet serve needs uvicorn: pip install "duet-vlm[serve]"' in capsys.readouterr().err


ENDS = [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]


@pytest.mark.parametrize("number", ENDS, ids=["term", "int"])
def test_a_server_from_its_first_line_to_its_last(number: int) -> None:
    """The printed key opens it; a signal ends it with 0 and without a traceback."""
    environment = {name: value for name, value in os.environ.items() if name != "DUET_API_KEY"}
    command = [sys.executable, "-m", "duet.cli.main", "serve", str(MINI), "--port", "0", "--budget", "mini_third"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = []
        while not any("API key" in line for line in lines):
            lines.append(process.stderr.readline())
            assert process.poll() is None, lines
        said = "".join(lines)
        found = re.search(r"llava-mini at http://127\.0\.0\.1:(\d+)/v1", said)
        key = re.search(r"API key of this run .*: (\S+)", said)
        assert found and key
        connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=60)
        body = json.dumps({"model": "llava-mini", "messages": [{"role": "user", "content": "Is there a ring?"}]})
        connection.request("POST", "/v1/chat/completions", body, {"Authorization": f"Bearer {key[1]}"})
        answer = connection.getresponse()
        assert answer.status == 200 and json.loads(answer.read())["usage"]["duet"]["budget"] == "mini_third"
        connection.close()
        process.send_signal(number)
        rest = process.stderr.read()
        assert process.wait(30) == 0 and "Traceback" not in rest
