"""Mistakes on the command line of `duet demo` are told before a model is loaded."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from duet.cli.demo import VARIABLE, read_login
from duet.cli.main import main
from duet.errors import UserError

pytest.importorskip("gradio", reason="gradio is not installed: pip install -e .[demo]")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--host", "0.0.0.0"], "name:password"),
        (["--methods", "dut"], "unknown method 'dut'"),
        (["--share", "1.5"], "not a share"),
        (["no/such/model"], "no/such/model"),
        (["--methods", "cdpruner"], "does not run on LLaVA-1.5"),
        (["--login-file", "no/such/file"], "cannot be read"),
    ],
)
def test_mistakes(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    try:
        code = main(["demo", "--port", "0", *words])
    except SystemExit as end:  # argparse
        code = int(end.code or 0)
    assert code == 2
    assert message in capsys.readouterr().err


def test_a_taken_port(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["demo", "--port", str(taken.getsockname()[1])]) == 2
    assert "--port" in capsys.readouterr().err


def test_the_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "ada:a:b")
    assert read_login(None) == ("ada", "a:b")
    file = tmp_path / "login"
    for text in ("ada", ":x", "ada:", ""):
        file.write_text(text)
        with pytest.raises(UserError, match="not a login"):
            read_login(file)
