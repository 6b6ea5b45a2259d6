"""A missing optional package is named with its extra before work starts."""

from __future__ import annotations

import pytest

from duet import extras
from duet.cli.main import main
from duet.errors import UserError


def test_what_is_missing_is_named():
    extras.need("duet viz", "plot", "json")
    with pytest.raises(UserError, match=r'duet viz needs no_such_plotter: pip install "duet-vlm\[plot\]"'):
        extras.need("duet viz", "plot", "json", "no_such_plotter")


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        ("viz nothing.png why", "plot"),
        ("plot accuracy --results outputs/none", "plot"),
        ("report outputs/none", "plot"),
        ("serve", "serve"),
        ("demo", "demo"),
    ],
)
def test_commands_ask_first(words, extra, monkeypatch, capsys):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    assert main(words.split()) == 2
    assert f'pip install "duet-vlm[{extra}]"' in capsys.readouterr().err


@pytest.mark.parametrize("words", ["plot accuracy --results outputs/none -o a.png --format pdf"])
def test_a_format_and_a_file_name(words, capsys):
    assert main(words.split()) == 2
    assert "--format has no effect with --out" in capsys.readouterr().err
