"""Grids and options of the smaller commands with values that they cannot have: one line, and no traceback."""

from __future__ import annotations

import pytest

from duet.cli import main as program
from duet.config import ConfigError
from duet.eval.running.vary import expand


@pytest.mark.parametrize(
    "block",
    [
        {"each": 3},
        {"each": [1]},
        {"each": "abc"},
        {"each": {"dominant": []}},
        {"each": {"dominant": 5}},
        {"each": {"dominant": ["a"]}},
        {"each": {"dominant": [None]}},
        {"each": {"dominant": [float("nan")]}},
        {"each": {"dominant": [10**400], "layers": [[float("inf")]]}},
        {"each": {"dominant": [True]}},
        {"each": {"layers": [[1, "b"]]}},
        {"each": {"layers": [[["a"]]]}},
        {"each": {"dominant": [1]}, "fixed": 3},
        {"each": {"dominant": [1]}, "total": "x"},
        {"each": {"layers": [[1]]}, "total": 5},
        {"each": {"dominant": [1]}, "bogus": 5},
    ],
)
def test_blocks_of_a_grid(block):
    with pytest.raises(ConfigError, match=r"^vary: "):
        expand({"vary": [block]})


@pytest.mark.parametrize(
    ("grid", "message"),
    [({"budgets": -1}, "budgets: "), ({"budgets": [["x"]]}, "budgets: "), ({"vary": {"each": 1}}, "vary: ")],
)
def test_sections_of_a_grid(grid, message):
    with pytest.raises(ConfigError, match=message):
        expand(grid)


@pytest.mark.parametrize(
    "words",
    [
        ["budget", "show", "llava15_128", "--pictures", "9" * 50],
        ["budget", "show", "llava15_128", "--pictures", "0"],
        ["budget", "show", "llava15_128", "--text", "9" * 400],
        ["budget", "show", "llava15_128", "--text", "-1"],
        ["budget", "show", "llava15_128", "--tokens", "-1"],
        ["budget", "show", "--dominant", "5", "--cluster-width", "0"],
        ["budget", "solve", "--average", "64", "--stages", "1", "--ratio-base", "compounding"],
        ["methods", "--json", "--markdown"],
        ["methods", "scope", "--markdown"],
        ["table", "١"],  # a digit, but no number of a table
        ["table", "1", "--plan", "--model", ""],
        ["table", "6", "--results", ".", "--training", "/nowhere"],
        ["table", "1", "--training", "/nowhere"],
        ["serve", "--port", "٣"],
        ["serve", "--name", ""],
        ["serve", "--allow-budgets", ","],
        ["serve", "--allow-domains", "http://example.org/x"],
        ["serve", "--port", "9" * 5000],
    ],
)
def test_options_of_commands(words, capsys):
    try:
        code = program.main(words)
    except SystemExit as end:
        code = end.code
    said = capsys.readouterr().err
    assert code == 2 and said.count("\n") == 1, said
