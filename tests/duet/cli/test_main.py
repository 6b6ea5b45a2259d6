"""The dispatcher: help without torch, exit codes, one line for a mistake, spellings."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module

import pytest

from duet.cli import main as cli
from duet.errors import UserError
from duet.version import VERSION

LIGHT = """
import sys, time
start = time.process_time()
from duet.cli.main import build_parser
build_parser().format_help()
print(time.process_time() - start, *(name for name in ("torch", "transformers", "matplotlib") if name in sys.modules))
"""


def test_help_is_light() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    seconds, *heavy = done.stdout.split()
    assert not heavy
    assert float(seconds) < 0.5


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_the_protocol_and_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = import_module(f"duet.cli.{name}")
    assert module.SUMMARY and "\n" not in module.SUMMARY
    with pytest.raises(SystemExit) as stop:
        cli.main([name, "--help"])
    assert stop.value.code == 0
    help_text = capsys.readouterr().out
    assert f"duet {name}" in module.EXAMPLES
    assert module.EXAMPLES.splitlines()[1] in help_text


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == cli.MISTAKE
    listed = capsys.readouterr().out
    assert all(f"\n    {name} " in listed for name in cli.COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"duet {VERSION}\n"


def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["budget", "show", "llava15_182"]) == cli.MISTAKE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("duet: error: unknown budget 'llava15_182'") and err.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["eval", "--tasks", "pope", "--output", ""],
        ["eval", "--tasks", "pope", "--output="],
        ["eval", "--tasks", "pope", "--output", "out", "--model", " "],
        ["ask", "a.png", "why?", "--device", ""],
        ["budget", "show", "--dominant", "9", "--tokens=--"],
        ["budget", "solve", "--average=--"],
        ["table", "1", "--out", ""],
    ],
)
def test_an_empty_value_is_no_default(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(words)
    error = capsys.readouterr().err
    assert " is empty; give a value, or leave the option out" in error and error.count("\n") == 1


def test_so_is_a_budget_that_is_no_yaml(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", "--method", "duet", "--budget", "{dominant: 17", "--tasks", "pope", "--output", "out"]
    assert cli.main(words) == cli.MISTAKE
    error = capsys.readouterr().err
    assert error.startswith("duet: error: --budget: '{dominant: 17' is not valid YAML") and error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ask", "photo.jpg"], "duet ask: error: the following arguments are required: QUESTION"),
        (["ask", "clip.mp4", "why?", "--frames", "0"], "duet ask: error: argument --frames: 0 is not"),
        (["budget", "solve", "--average", "many"], "duet budget solve: error: "),
        (["methods", "--yaml"], "duet: error: unrecognized arguments: --yaml"),
        (["budget", "show", "llava15_128", "--js"], "duet: error: unrecognized arguments: --js"),
        (["data", "layout", "--dat", "somewhere"], "duet: error: unrecognized arguments: --dat"),
    ],
)
def test_so_is_a_command_line_that_does_not_parse(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert stop.value.code == cli.MISTAKE
    error = capsys.readouterr().err
    assert error.startswith(message) and error.count("\n") == 1


@pytest.mark.parametrize("words", [["--debug", "budget", "show", "nope"], ["budget", "--debug", "show", "nope"]])
def test_debug_shows_where(words: list[str]) -> None:
    with pytest.raises(UserError, match="nope"):
        cli.main(words)


def test_an_unknown_command_names_the_known(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["aks"])
    assert stop.value.code == cli.MISTAKE
    assert "ask" in capsys.readouterr().err


def test_underscores_are_dashes(capsys: pytest.CaptureFixture[str]) -> None:
    show = ["budget", "show", "--dominant=170", "--contextual", "35", "--json"]
    assert cli.main([*show, "--cluster_width=8"]) == 0
    first = capsys.readouterr().out
    assert cli.main([*show, "--cluster-width", "8"]) == 0
    assert capsys.readouterr().out == first
    assert json.loads(first)["cluster_width"] == 8


def test_an_interrupt_says_so(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def interrupted(args: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("duet.cli.methods.run", interrupted)
    assert cli.main(["methods"]) == cli.INTERRUPTED
    assert capfd.readouterr().err == "duet: interrupted\n"


def test_a_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m duet.cli.main budget list --json | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[", "0"]
    assert done.stderr == ""


def test_standard_output_is_ours_alone(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    plugin = tmp_path / "loud.py"
    plugin.write_text("print('a library says hello')\n")
    assert cli.main(["methods", "duet", "--json", "--plugin", str(plugin)]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) and "a library says hello" in err
