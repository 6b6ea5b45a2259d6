"""Methods from outside that are wrong in many ways: each is named in one sentence, when it is read, attached or run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import duet
from duet.budget import Budget
from duet.cli import main as program
from duet.errors import UserError
from duet.method_table import METHODS
from duet.plugins import load_plugin
from tests.tiny_llava import collate, make_row, tiny_llava

HEAD = "import torch, duet\nfrom duet.edit import Edit\n"
REDUCER = {"needs": "frozenset()", "scope": "'unit'", "contextual": "False"}
PRUNER = {"needs": "frozenset()", "layer": "'next'"}
GOOD = "Edit.keep(torch.arange(6).expand(b, 6), n)"


@pytest.fixture(autouse=True)
def own_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a plugin registers is gone after the test."""
    monkeypatch.setattr("duet.method_table.METHODS", dict(METHODS))


def attributes(given: dict[str, str]) -> str:
    return "; ".join(f"{name} = {value}" for name, value in given.items()) or "pass"


def reducer(returned: str = GOOD, **changed: str | None) -> str:
    """A file that registers a stage 1; attributes that are None are left out."""
    given = {name: value for name, value in {**REDUCER, **changed}.items() if value is not None}
    return (
        f"{HEAD}class R:\n    {attributes(given)}\n    def __call__(self, states, budget):\n"
        f"        b, n = states.features.shape[:2]\n        return {returned}\nduet.register('mine', reducer=R)\n"
    )


def pruner(returned: str = "(torch.zeros(view.visual.shape), view.text)", own: str = "", **changed: str | None) -> str:
    """A file that registers a stage 2."""
    given = {name: value for name, value in {**PRUNER, **changed}.items() if value is not None}
    edit = (
        f"    def edit(self, view, scores, counts):\n        b, t = scores.shape\n        return {own}\n" if own else ""
    )
    return (
        f"{HEAD}class P:\n    {attributes(given)}\n    def score(self, view):\n        return {returned}\n{edit}"
        "duet.register('mine', pruner=P)\n"
    )


def try_plugin(code: str, folder: Path) -> None:
    """Read the file, attach the method, run a prompt."""
    path = folder / "mine.py"
    path.write_text(code, encoding="utf-8")
    load_plugin(str(path))
    model: Any = tiny_llava()
    stage2 = "pruner=" in code
    duet.attach(model, "mine", Budget(layers=(2,), ratios=(0.5,)) if stage2 else Budget(dominant=6))
    with torch.no_grad():
        model(**collate([make_row(1, 6), make_row(2, 3, seed=1)]))


@pytest.mark.parametrize("code", [reducer(), reducer(needs="{'keys'}"), pruner()])
def test_what_is_right_runs(code, tmp_path):
    try_plugin(code, tmp_path)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise SystemExit(0)", "mine.py: SystemExit"),
        ("import sys; sys.exit()", "mine.py: SystemExit"),
        ("class E(BaseException): pass\nraise E('x')", "mine.py: E: x"),
        ("def (", "mine.py: SyntaxError"),
        ("def f(): f()\nf()", "mine.py: RecursionError"),
        (f"{HEAD}duet.register('mine', reducer=5)", "5 is not a class"),
        (f"{HEAD}duet.register('mine', reducer='a:b')", "'a:b' is not a class"),
        (f"{HEAD}class R: pass\nduet.register(5, reducer=R)", "mine.py: method name 5"),
        (f"{HEAD}class R: pass\nduet.register('mine', reducer=R, schedule='flat')", "schedule is 'flat'"),
        (f"{HEAD}class R: pass\nduet.register('mine', reducer=R)", r"method mine \(R\) has no attribute scope"),
        (reducer(needs=None), "no attribute needs"),
        (reducer(scope=None), "no attribute scope"),
        (reducer(contextual=None), "no attribute contextual"),
        (reducer(scope="'galaxy'"), "scope is 'galaxy'; choose unit or medium"),
        (reducer(contextual="3"), "contextual is 3"),
        (reducer(needs="'keys'"), "needs is 'keys'"),
        (reducer(needs="{'soul'}"), "needs soul"),
        (reducer().replace("__call__", "call"), "no function __call__"),
        (reducer().replace("__call__(self", "__init__(self"), "missing 2 required"),
        (pruner(layer=None), "no attribute layer"),
        (pruner(layer="'second'"), "layer is 'second'"),
        (pruner(needs="{'x'}"), "needs x; a stage 2 may need"),
        (pruner().replace("def score", "def scores"), "no function score"),
    ],
)
def test_classes_that_are_none(code, message, tmp_path):
    with pytest.raises(UserError, match=message):
        try_plugin(code, tmp_path)


LONG = "torch.zeros(b, 3).long()"
KEPT = "torch.arange(6).expand(b, 6)"


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("None", r"method mine \(R\) returns None; it must return a duet.edit.Edit"),
        ("torch.zeros(b, 1)", "returns a tensor"),
        ("Edit.keep(torch.zeros(b, 6), n)", r"kept is a tensor \[3, 6\] of float32"),
        ("Edit.keep(torch.arange(6), n)", r"kept is a tensor \[6\]"),
        ("Edit.keep(torch.arange(6).expand(b + 1, 6), n)", r"kept is a tensor \[4, 6\]"),
        ("Edit.keep(torch.arange(6).expand(b, 6) + n, n)", "kept of its edit holds 16"),
        ("Edit.keep(torch.arange(6).expand(b, 6) - 9, n)", "kept of its edit holds -9"),
        ("Edit.keep(torch.zeros(b, 6).long(), n)", "keeps a token of a row twice"),
        ("Edit.keep(torch.arange(6).expand(b, 6), n + 5)", "tokens of its edit is 21"),
        ("Edit.keep(torch.zeros(b, 0).long(), n)", "keeps 0 tokens"),
        ("Edit.keep(torch.arange(n).expand(b, n), n)", "keeps 16 tokens of a row; the budget has 1 to 6"),
        ("[][3]", "fails: IndexError"),
        (f"Edit({KEPT}, n, source={LONG})", "source, target and weight"),
        (f"Edit({KEPT}, n, {LONG}, {LONG}[:, :2], torch.ones(b, 3), contextual=6)", "target is a tensor"),
        (f"Edit({KEPT}, n, {LONG}, {LONG} + 50, torch.ones(b, 3), contextual=6)", "not among the last 6 of 6"),
        (f"Edit({KEPT}, n, {LONG}, {LONG}, torch.ones(b, 3))", "not among the last 0 of 6"),
        (f"Edit({KEPT}, n, {LONG}, {LONG}, torch.ones(b, 2), contextual=6)", "weight is a tensor"),
        (f"Edit({KEPT}, n, share=torch.ones(b, 3))", "share is a tensor"),
        (f"Edit({KEPT}, n, contextual=30)", "contextual of its edit is 30"),
    ],
)
def test_edits_that_are_wrong(returned, message, tmp_path):
    with pytest.raises(UserError, match=message):
        try_plugin(reducer(returned), tmp_path)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (pruner("None"), "score returns None"),
        (pruner("torch.zeros(view.visual.shape)"), "score returns a tensor"),
        (pruner("(torch.zeros(3), view.text)"), "scores is a tensor"),
        (pruner("(view.visual, view.text)"), "of bool; it must be"),
        (pruner("(torch.zeros(view.visual.shape), None)"), "voters is None"),
        (pruner("(torch.full(view.visual.shape, float('nan')), view.text)"), "a score of a visual token is nan"),
        (pruner("{}['x']"), "fails: KeyError"),
        (pruner(own="None"), "returns None"),
        (pruner(own="Edit.keep(torch.zeros(b, 2).long(), 3)"), "tokens of its edit is 3"),
        (pruner(own="Edit.keep(torch.zeros(b, 1).long(), t)"), "keeps a token that is not a candidate"),
        (
            pruner(own="Edit.keep(torch.where(view.visual, torch.arange(t), -2), t)"),
            r"edit keeps \[16, 32\] tokens; the budget has \[8, 16\]",
        ),
    ],
)
def test_scores_that_are_wrong(code, message, tmp_path):
    with pytest.raises(UserError, match=message):
        try_plugin(code, tmp_path)


def test_a_plugin_that_exits_is_a_mistake_of_the_command(tmp_path, capsys):
    """It used to end the command with code 0 and no word."""
    (tmp_path / "mine.py").write_text("raise SystemExit", encoding="utf-8")
    assert program.main(["methods", "--plugin", str(tmp_path / "mine.py")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
