"""The commands that fill the tables are commands that the tools take."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

import pytest

from duet.budget import named
from duet.cli import eval as eval_command
from duet.errors import UserError
from duet.registry import METHODS
from duet.report.paper import read_table
from duet.report.plan import Plan, commands, results_folder


def parsed(line: str) -> argparse.Namespace:
    """A `duet eval` line, read by the command's own parser."""
    words = shlex.split(line)
    assert words[:2] == ["duet", "eval"]
    parser = argparse.ArgumentParser(exit_on_error=False)
    eval_command.add_arguments(parser)
    return parser.parse_args(words[2:])


@pytest.mark.parametrize("number", [1, 5, 7, 8, 11])
def test_every_row_has_a_command_or_says_why_not(number):
    table = read_table(number)
    lines = list(commands(table, Plan()))
    assert len(lines) == len(table.rows)
    for row, line in zip(table.rows, lines, strict=True):
        if row.method not in METHODS:
            assert line == f"# {row.label} at {row.tokens} tokens: not among the methods of this version (duet methods)"
            continue
        args = parsed(line)
        assert (args.model, args.method) == (table.model, row.method)
        assert args.tasks == ",".join(table.tasks)
        assert Path(args.output).parent == Path(results_folder(table))
        if row.method != "none":
            assert named(args.budget, METHODS[row.method].stages).average("llava15") == pytest.approx(
                row.tokens, abs=0.5
            )


def test_rows_have_folders_of_their_own():
    outputs = [parsed(line).output for line in commands(read_table(8), Plan())]
    assert len(set(outputs)) == len(outputs)


def test_trained_rows_train_first():
    lines = list(commands(read_table(6), Plan(recipe="recipe.yaml", processes=8)))
    assert lines[0].startswith("accelerate launch --num_processes 8 -m duet.cli.main eval --model llava-hf/")
    assert lines[1] == (
        "accelerate launch --num_processes 8 -m duet.train.run recipe.yaml compression.method=duet_c "
        "compression.budget=llava15_192 training.output_dir=checkpoints/llava15-duet_c-192"
    )
    assert "--model checkpoints/llava15-duet_c-192 --method duet_c" in lines[2]
    with pytest.raises(UserError, match="--recipe"):
        list(commands(read_table(3), Plan()))


def test_budget_tables_show_their_budgets():
    assert next(iter(commands(read_table(12), Plan()))) == "duet budget show llava15_192"


def test_videos_are_judged_after_they_are_answered():
    lines = list(commands(read_table(4), Plan()))
    assert lines[1].startswith(
        "duet judge tgif --data ./playground/data/eval --predictions outputs/paper/videollava/none/"
    )
    assert lines[1].endswith('--judge-url "$JUDGE_URL" --judge-model "$JUDGE_MODEL"')
