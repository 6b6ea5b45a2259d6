"""Every `duet` command line in documents, help texts, configurations and scripts is one that the parser takes."""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from duet.cli.main import COMMANDS, EXAMPLES, build_parser, prepared

ROOT = Path(__file__).parents[1]
FOLDERS = ("docs", "packaging", "playground", "deploy", "examples", "benchmarks")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))])
COMMENTED = sorted([*(ROOT / "configs").rglob("*.yaml"), *(ROOT / "scripts").rglob("*.sh")])
#: A separator of commands in bash.
OPERATOR = re.compile(r"[|&;<>()]+")
#: Words that may stand before a command.
BEFORE = re.compile(r"do|then|else|nohup|time|\w+=.*")


def fenced(text: str) -> Iterator[str]:
    """Lines of code blocks; one that ends in a backslash goes on."""
    language = None
    for line in text.replace("\\\n", " ").splitlines():
        if line.lstrip().startswith("```"):
            language = line.strip().removeprefix("```") if language is None else None
        elif language in ("", "bash", "sh", "console"):
            yield line


def calls(line: str) -> Iterator[list[str]]:
    """The words after `duet` of every command of a line of bash; a line of another kind has none."""
    if not re.match(r"[$ ]*(?:duet|accelerate|torchrun|for|\w+=\S+) ", line):
        return
    lexer = shlex.shlex(line.strip().removeprefix("$ "), posix=True, punctuation_chars="|&;<>()")
    lexer.whitespace_split, lexer.commenters = True, "#"
    part: list[str] = []
    for word in [*lexer, ";"]:
        if not OPERATOR.fullmatch(word):
            part.append(word)
            continue
        for place, one in enumerate(part):
            ours = one == "duet" and all(BEFORE.fullmatch(before) for before in part[:place])
            if ours or (one == "duet.cli.main" and part[place - 1] == "-m"):
                yield part[place + 1 :]
                break
        part = []


def refusal(words: list[str]) -> str:
    """What the parser says against a command line; empty if it takes it."""
    error = io.StringIO()
    with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()):
        try:
            words, _, parser = prepared(words)
            parser.parse_args(words)
        except SystemExit as end:
            return error.getvalue() if end.code else ""
    return ""


@cache
def options(command: str) -> set[str]:
    """All options of a command and its actions."""
    found, open_ = set(), [build_parser(command)]
    while open_:
        for action in open_.pop()._actions:
            found |= set(action.option_strings)
            if isinstance(action, argparse._SubParsersAction):
                open_ += [parser for name, parser in action.choices.items() if name not in COMMANDS or name == command]
    return found


def help_texts() -> dict[str, str]:
    return {"main": EXAMPLES, **{name: import_module(f"duet.cli.{name}").EXAMPLES for name in COMMANDS}}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_command_lines_of_documents_are_taken(path: Path) -> None:
    lines = [words for line in fenced(path.read_text(encoding="utf-8")) for words in calls(line)]
    assert not {" ".join(words): refusal(words) for words in lines if refusal(words)}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_and_options_named_in_a_sentence_are_there(path: Path) -> None:
    spans = re.findall(r"`duet ([a-z][^`]*)`", re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.S))
    for span in spans:
        name, *words = span.split()
        assert name in COMMANDS, span
        given = {word.partition("=")[0] for word in words if re.match(r"--\w", word)}
        assert name == "train" or given <= options(name), span


@pytest.mark.parametrize("name", ["main", *COMMANDS])
def test_examples_of_help_are_taken(name: str) -> None:
    text = help_texts()[name].replace("\\\n", " ")
    lines = [words for line in text.splitlines() for words in calls(line)]
    assert lines
    assert not {" ".join(words): refusal(words) for words in lines if refusal(words)}


@pytest.mark.parametrize("path", COMMENTED, ids=lambda path: str(path.relative_to(ROOT)))
def test_command_lines_in_comments_are_taken(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace("\\\n#", " ")
    lines = re.findall(r"^# +((?:duet|accelerate launch|torchrun) .*)", text, re.MULTILINE)
    for words in (words for line in lines for words in calls(line)):
        assert not refusal(words)


@pytest.mark.parametrize(
    "line",
    [
        "duet ask",
        "duet ask a.png why --avrage 3",
        "A=1 duet evall",
        "duet doctor && duet eval --bugdet 3",
        "duet plot 1 2 3 --x",
    ],
)
def test_a_wrong_command_line_is_found(line: str) -> None:
    assert any(refusal(words) for words in calls(line))
