"""configs/budgets: every stated and computed number, and the settings that are solved."""

import pytest

from duet.budget import BACKBONES, Budget, budgets, find_backbone, find_row
from duet.errors import UserError
from tests.named import named

#: The layers before the first drop see all tokens: 2 of 32 x 2880 = 180, 1 of 8 x 100 = 12.5.
BELOW_STAGE_2 = {
    "llavanext_160",
    "mini_ninth",
    "mini_ninth_safe",
    "mini_ninth_calibrated",
    "mini_ninth_calibrated_duet",
}
SETTINGS = [(name, key) for name in budgets() for key in find_row(name).settings]


@pytest.mark.parametrize(("name", "key"), SETTINGS)
def test_computed_averages_are_what_the_budgets_give(name, key):
    row = find_row(name)
    assert row.settings[key].average(row.backbone) == row.averages[key]


@pytest.mark.parametrize(("name", "key"), SETTINGS)
def test_a_stated_average_that_is_missed_has_a_note(name, key):
    row = find_row(name)
    step = find_backbone(row.backbone).pictures / 2
    assert abs(row.averages[key] - row.target) <= max(0.5, step * 0.625) or row.note


@pytest.mark.parametrize("name", [name for name in budgets() if find_row(name).printed])
def test_printed_counts_are_those_of_all_pictures(name):
    row = find_row(name)
    budget, pictures = row.settings["both"], BACKBONES[row.backbone].pictures
    assert row.printed == (pictures * budget.dominant, pictures * budget.contextual)


def test_all_rows_of_the_papers_tables_are_here():
    printed = {find_row(name).printed: find_row(name).target for name in budgets()}
    del printed[None]
    assert printed == {
        (300, 7): 192, (170, 35): 128, (72, 30): 64,
        (850, 175): 640, (360, 150): 320, (225, 30): 160,
        (1280, 256): 960, (160, 56): 136,
        (870, 153): 640, (517, 91): 320, (207, 36): 160,
    }  # fmt: skip


@pytest.mark.parametrize("name", [name for name in budgets() if find_row(name).source.endswith("solved")])
def test_solved_rows_are_what_solve_finds(name):
    row = find_row(name)
    for key, stages in (("both", (1, 2)), ("stage1", (1,)), ("stage2", (2,))):
        if key in row.settings:
            assert row.settings[key] == Budget.solve(average=row.target, backbone=row.backbone, stages=stages)


@pytest.mark.parametrize("name", [name for name in budgets() if not find_row(name).backbone.startswith("qwen")])
@pytest.mark.parametrize("stages", [(1, 2), (1,), (2,)])
def test_every_method_gets_the_same_average(name, stages):
    row = find_row(name)
    if stages == (2,) and name in BELOW_STAGE_2:
        with pytest.raises(UserError, match="cannot be reached"):
            named(name, stages)
        assert "stage 2 alone" in row.note
        return
    budget = named(name, stages)
    assert (budget.stage1 is not None) == (1 in stages)
    assert budget.layers if 2 in stages else not budget.ranks  # an exit needs no stage 2
    assert budget.average(row.backbone) == pytest.approx(
        row.target, rel=0.012, abs=max(0.35, find_backbone(row.backbone).pictures / 3)
    )


def test_stage_2_of_a_qwen_row_is_solved_on_a_picture_of_known_size():
    with pytest.raises(UserError, match="with_patches"):
        named("qwen2_5_vl_640", stages=(2,))
    backbone = find_backbone("qwen2_5_vl").with_patches(1280)
    assert named("qwen2_5_vl_640", (2,), backbone).average(backbone) == pytest.approx(640, abs=1)


def test_unknown_names_and_stages():
    with pytest.raises(UserError, match="unknown budget 'llava_192'; did you mean llava15_192"):
        named("llava_192")
    with pytest.raises(UserError, match="stages"):
        named("llava15_192", stages=(3,))


def test_a_budget_of_a_deeper_model():
    with pytest.raises(
        UserError, match=r"llava15_128 is made for llava15, not for this model: an average of 128 .*mini"
    ):
        named("llava15_128", backbone="mini")
