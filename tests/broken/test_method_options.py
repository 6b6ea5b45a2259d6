"""Values that a method's own options cannot have, and options that would do nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

import duet
from duet.budget import Budget
from duet.cli import main as program
from duet.errors import UserError
from tests.families import FAMILIES
from tests.llava_checkpoints import HF

WRONG = [
    ("scope", "alpha", "abc", "method scope: Scope: alpha: expected a number, got 'abc'"),
    ("scope", "alpha", [1, 2], "expected a number"),
    ("scope", "alpha", True, "expected a number"),
    ("scope", "alpha", float("nan"), "expected a number"),
    ("scope", "alpha", 10**400, "expected a number"),
    ("random", "seed", 1.5, "expected a whole number"),
    ("random", "seed", -1, "seed is -1"),
    ("random", "seed", 10**30, "seed is"),
    ("holov", "num_patches", 2.5, "expected a whole number"),
    ("holov", "num_patches", 0, "num_patches is 0"),
    ("holov", "alpha", {}, "expected a number"),
    ("mmtok", "text_temperature", 0, "above 0"),
    ("mmtok", "vision_weight", "foo", "expected a number"),
    ("holitom", "tau", "x", "expected a number"),
    ("holitom", "noise_seed", -5, "noise_seed is -5"),
    ("fastvid", "noise_seed", 10**30, "noise_seed is"),
    ("tops", "lambda_", "nan", "expected a number"),
    ("sparsevlm", "version", 2, "expected text"),
    ("hired", "tiles", 3, "expected text"),
]


@pytest.mark.parametrize(("method", "name", "value", "message"), WRONG)
def test_values(method, name, value, message):
    model = FAMILIES["llava"].build()
    with pytest.raises(UserError, match=message):
        FAMILIES["llava"].attach(model, method, **{name: value})


def test_a_number_that_yaml_reads_as_text_is_one():
    model = FAMILIES["llava"].build()
    duet.attach(model, "scope", Budget(dominant=4), alpha="2e0")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "none", "--positions", "keep"], "--positions would do nothing"),
        (["--method", "scope", "--cluster-width", "3"], "--cluster-width would do nothing"),
        (["--method", "visionzip", "--cluster-width", "3", "--dominant", "5"], "--cluster-width would do nothing"),
        (["--method", "duet", "--contextual-merge", "visionzip", "--cluster-width", "3"], "makes no local clusters"),
        (["--method", "pyramiddrop", "--cluster-width", "3"], "makes no local clusters"),
        (["--method", "scope", "--option", "alpha="], "has no value"),
        (["--method", "scope", "--option", "alpha=null"], "has no value"),
        (["--dominant", "9" * 4000], "too large a number"),
        (["--cluster-width", "9" * 20], "too large a number"),
    ],
)
def test_options_of_a_command(words, message, tmp_path: Path, capsys):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    command = ["ask", str(tmp_path / "a.png"), "What?", "--model", str(HF), "--device", "cpu", *words]
    try:
        code = program.main(command)
    except SystemExit as end:
        code = end.code
    said = capsys.readouterr().err
    assert code == 2 and message in said and said.count("\n") == 1


def test_a_companion_without_a_model(tmp_path):
    """An empty folder is no CLIP checkpoint; transformers raises another error for it than for no folder."""
    from tests.tiny_words import tiny_tokenizer

    with pytest.raises(UserError, match="needs CLIP's text tower"):
        duet.attach(
            FAMILIES["llava"].build(),
            "cdpruner",
            Budget(dominant=4),
            tokenizer=tiny_tokenizer(),
            companion=str(tmp_path),
        )
