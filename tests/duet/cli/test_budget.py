"""`duet budget`: what it prints, as text and as JSON, and what it refuses."""

import argparse
import json

import pytest

from duet.budget import budgets, find_row
from duet.cli import budget as command
from duet.errors import UserError


def run(line: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(line.split()))


def printed(capsys: pytest.CaptureFixture[str], line: str) -> dict:
    assert run(f"{line} --json") == 0
    return json.loads(capsys.readouterr().out)


def test_list_shows_every_budget_with_both_averages(capsys):
    rows = printed(capsys, "list")
    assert [row["name"] for row in rows] == budgets()
    assert run("list") == 0
    text = capsys.readouterr().out
    line = next(line for line in text.splitlines() if line.startswith("qwen2_5_vl_640 "))
    assert line.split()[1:3] == ["640", "703"] and line.endswith("*")


def test_show_a_name(capsys):
    facts = printed(capsys, "show llava15_128")
    assert (facts["dominant"], facts["contextual"], facts["entered"]) == (170, 35, 205)
    assert facts["tokens_per_layer"] == [205] * 16 + [102] * 8 + [0] * 8
    assert (facts["average"], facts["stated_average"], facts["all_tokens"]) == (128.0, 128, 576)
    assert 0 < facts["costs"]["total_flops"] < facts["costs_of_all_tokens"]["total_flops"]
    assert run("show llava15_128") == 0
    text = capsys.readouterr().out
    for part in ("170 dominant", "1-16: 205", "17-24: 102", "25-32: 0", "128.00 visual tokens of 576 (22.2 %)"):
        assert part in text


def test_show_says_where_the_stated_average_is_missed(capsys):
    run("show qwen2_5_vl_320")
    text = capsys.readouterr().out
    assert "418.00 visual tokens; stated 320" in text
    assert find_row("qwen2_5_vl_320").note in text
    assert "add --tokens" in text


def test_show_the_released_compounding_and_a_small_picture(capsys):
    facts = printed(capsys, "show qwen2_5_vl_640 --ratio-base compounding")
    assert (facts["ratio_base"], facts["kept"]) == ("compounding", [511, 383])
    facts = printed(capsys, "show qwen2_5_vl_640 --tokens 600")
    assert (facts["dominant"], facts["contextual"], facts["entered"], facts["kept"]) == (599, 1, 600, [300, 150])


def test_show_numbers_of_pictures_and_crops(capsys):
    line = "show --dominant 0.3 --contextual 35 --layers 0.5,0.75 --ratios 0.5,0 --backbone llavanext --pictures 3"
    facts = printed(capsys, line)
    assert (facts["dominant"], facts["entered"], facts["layers"]) == (172, 3 * 207, [16, 24])


def test_solve_and_show_agree(capsys):
    solved = printed(capsys, "solve --average 192")
    shown = printed(capsys, "show llava15_192")
    for key in ("dominant", "contextual", "tokens_per_layer", "costs"):
        assert solved[key] == shown[key]


def test_layers_without_visual_tokens(capsys):
    line = "show --dominant 40 --layers 1,6 --keep 16,0 --away 2,3 --backbone mini"
    facts = printed(capsys, line)
    assert (facts["away"], facts["tokens_per_layer"]) == ([2, 3], [40, 16, 0, 0, 16, 16, 0, 0])
    assert run(line) == 0
    assert "in layers 2 to 3, counted from 0; then as they were" in capsys.readouterr().out
    solved = printed(capsys, "solve --average 11 --layers 1,6 --ratios 0.4,0 --away 2,3 --backbone mini")
    assert solved["tokens_per_layer"] == facts["tokens_per_layer"]


def test_solve_for_one_stage_on_a_picture_of_known_size(capsys):
    facts = printed(capsys, "solve --average 640 --backbone qwen2_5_vl --tokens 1280 --stages 2 --text 20")
    assert facts["dominant"] is None
    assert facts["average"] == pytest.approx(640, abs=0.5)
    assert facts["text"] == 20


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("show", "nothing to show"),
        ("show llava15_64 --layers 3", "leave out --layers"),
        ("show lava15_64", "did you mean llava15_64"),
        ("show --dominant 3 --stages 1", "--stages"),
        ("show --dominant 600 --contextual 40", "asked for 640 tokens"),
        ("show llava15_64 --backbone nothing", "unknown backbone"),
        ("show llava15_64 --backbone nothing/config.json", "no such file"),
        ("solve --average 9000", "cannot be reached"),
        ("solve --average 64 --away 15,16,17", "can't be dropped after layer 16: they are away in layers 15 to 17"),
        ("show --dominant 9 --away 31", "for an exit give a last ratio of 0"),
    ],
)
def test_mistakes_are_user_errors(line, message):
    with pytest.raises(UserError, match=message):
        run(line)


@pytest.mark.parametrize("line", ["solve --average 3 --stages 3", "show --layers a,b", "solve"])
def test_arguments_that_cannot_be_read_end_the_command(line, capsys):
    with pytest.raises(SystemExit):
        run(line)
    assert "usage" in capsys.readouterr().err
