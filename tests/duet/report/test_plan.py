"""The commands that fill the tables are commands that the tools take."""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path

import pytest
import yaml

from duet.budget import Budget, find_backbone
from duet.cli import eval as eval_command
from duet.config import build
from duet.errors import UserError
from duet.method_table import METHODS
from duet.report.comparison import row_budget
from duet.report.paper import read_table
from duet.report.plan import STAGES, Plan, commands, results_folder, run_commands
from tests.named import named

ROOT = Path(__file__).parents[3]
MINI = ROOT / "playground" / "mini" / "checkpoints" / "llava-mini"


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
            assert line == f"# {row.label} at {row.tokens} tokens: method not available in this version (duet methods)"
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


def test_trained_rows_train_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text("model: {model_name_or_path: lmsys/vicuna-7b-v1.5}\n")
    lines = list(commands(read_table(6), Plan(recipe="recipe.yaml", processes=8)))
    assert lines[0] == (
        "accelerate launch --num_processes 8 -m duet.train.run recipe.yaml compression.method=none "
        "compression.budget=null training.output_dir=checkpoints/llava15-none"
    )
    assert lines[1].startswith("accelerate launch --num_processes 8 -m duet.cli.main eval --model llava-hf/")
    assert lines[2] == (
        "accelerate launch --num_processes 8 -m duet.train.run recipe.yaml compression.method=duet_c "
        "compression.budget=llava15_192 training.output_dir=checkpoints/llava15-duet_c-192"
    )
    assert "--model checkpoints/llava15-duet_c-192 --method duet_c" in lines[3]
    with pytest.raises(UserError, match="--recipe"):
        list(commands(read_table(3), Plan(model=str(MINI))))


@pytest.mark.parametrize("number", [3, 6])
def test_both_stages_are_trained_without_a_recipe(number, tmp_path):
    """The recipes take what the plan sets, and stage 2 starts from the projector of stage 1."""
    table = read_table(number)
    lines = [line for line in commands(table, Plan(processes=4)) if "duet.train.run" in line]
    assert len(lines) == 2 * (len(table.rows) - (number == 3))
    for first, second in zip(lines[::2], lines[1::2], strict=True):
        stages = [shlex.split(line)[6:] for line in (first, second)]
        (before, own), (after, then) = ((words[0], dict(word.split("=", 1) for word in words[1:])) for words in stages)
        assert (before, after) == tuple(recipe for recipe, _ in STAGES["llava15"])
        assert then["model.projector"] == f"{own['training.output_dir']}/mm_projector.bin"
        assert own["training.output_dir"] == f"{then['training.output_dir']}-pretrain"
        assert own["compression.method"] == then["compression.method"]
        assert own["training.gradient_accumulation_steps"] == "2"
        assert (ROOT / then["training.deepspeed"]).is_file()


def test_budget_tables_show_their_budgets():
    assert next(iter(commands(read_table(12), Plan()))) == "duet budget show llava15_192"


def test_videos_are_judged_after_they_are_answered():
    lines = list(commands(read_table(4), Plan()))
    assert lines[1].startswith(
        "duet judge tgif --data ./playground/data/eval --predictions outputs/paper/videollava/none/"
    )
    assert lines[1].endswith('--judge-url "$JUDGE_URL" --judge-model "$JUDGE_MODEL"')


def given_budgets(number: int, plan: Plan) -> dict[tuple[str, str], Budget]:
    """Budgets in numbers that a plan gives, by row."""
    found = {}
    for line in commands(read_table(number), plan):
        if " --budget " in line:
            args = parsed(line)
            found[args.method, Path(args.output).name] = build(Budget, yaml.safe_load(args.budget))
    return found


@pytest.mark.parametrize("number", [1, 5, 7, 11])
def test_a_smaller_model_gets_the_same_shares_of_its_tokens(number):
    table, plan = read_table(number), Plan(model=str(MINI))
    shares = {f"{row.method}-{row.tokens}": row.tokens / 576 for row in table.rows[1:]}
    found = given_budgets(number, plan)
    assert found
    for (_, name), budget in found.items():
        assert budget.average("mini") == pytest.approx(100 * shares[name], abs=0.6), name
    out_of_reach = [line for line in commands(table, plan) if "cannot be reached" in line]
    # the first of eight layers alone has more
    late = tuple(f"# {name} at 64 tokens: " for name in ("PyramidDrop", "FastV", "FitPrune", "SparseVLM"))
    assert all(line.startswith(late) for line in out_of_reach)


def test_a_recipe_of_a_smaller_model_trains_with_its_shares():
    recipe = str(ROOT / "configs" / "train" / "mini_final_duet.yaml")
    with pytest.raises(UserError, match=r"trains another model than the paper's.*--model"):
        list(commands(read_table(3), Plan(recipe=recipe)))
    lines = list(commands(read_table(3), Plan(recipe=recipe, model=str(MINI))))
    trained = [shlex.split(line) for line in lines if "duet.train.run" in line]
    assert len(trained) == 12
    for words in trained:
        budget = next(word.split("=", 1)[1] for word in words if word.startswith("compression.budget="))
        tokens = int(words[-1].rsplit("-", 1)[1])
        assert build(Budget, yaml.safe_load(budget)).average("mini") == pytest.approx(100 * tokens / 576, abs=0.6)


def test_rows_are_chosen_by_tokens_and_method():
    table = read_table(1).only([64], ["fastv", "DUET-VLM (C)"])
    assert [(row.method, row.tokens) for row in table.rows] == [("none", 576), ("fastv", 64), ("duet_c", 64)]
    assert [row.tokens for row in read_table(1).only(rows=["duet_c"]).rows] == [576, 192, 128, 64]
    for tokens, rows, message in (
        ([65], [], "no rows of 65 tokens; it has 192, 128, 64"),
        ([], ["scope"], "no row 'scope'; it has none, fastv"),
    ):
        with pytest.raises(UserError, match=message):
            read_table(1).only(tokens, rows)
    with pytest.raises(UserError, match="no row of fastv with 960 tokens"):
        read_table(4).only([960], ["fastv"])
    with pytest.raises(UserError, match="lists budgets"):
        read_table(12).only([64])


def test_methods_side_by_side_keep_the_tokens_that_the_table_states():
    for number in (1, 2, 4, 7, 10):
        table = read_table(number)
        backbone = find_backbone(table.backbone)
        sized = backbone if backbone.patches else backbone.with_patches(1300)
        for row in table.rows[1:]:
            if row.method in METHODS:
                average = row_budget(table, row).average(sized)
                assert average == pytest.approx(row.tokens, rel=0.01), (number, row)


def test_a_run_that_fails_stops_the_others_and_an_unset_variable_is_named(monkeypatch, capfd):
    monkeypatch.setenv("PATH", os.environ["PATH"])
    run_commands(["# a comment", "true", "sh -c 'exit 3'"])
    with pytest.raises(UserError, match="ended with 1"):
        run_commands(["false", "echo never"])
    assert "never" not in capfd.readouterr().out
    monkeypatch.delenv("JUDGE_URL", raising=False)
    with pytest.raises(UserError, match="set JUDGE_URL"):
        run_commands(['echo "$JUDGE_URL"'])


@pytest.mark.parametrize("number", [1, 4])
def test_every_row_of_tables_1_and_4_can_be_filled(number):
    table = read_table(number)
    assert not [line for line in commands(table, Plan()) if line.startswith("#")]
    depth = find_backbone(table.backbone).decoder.layers
    for row in table.rows[1:]:
        assert row_budget(table, row).layers_for(depth) is not None
