"""Shapes beyond the paper's: what enters, is updated and costs; shapes for any method; rows and files with a shape."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from duet.budget import BACKBONES, DUET, FLAT, PYRAMID, Budget, budgets, find_backbone, find_row, resolve_budget
from duet.budget.cost import frozen_share
from duet.budget.names import find_shape
from duet.budget.schedules import PLAIN, SAFE, VSCAN
from duet.budget.shapes import fit_shape, shape_of
from duet.errors import UserError

SHORTV = Budget(frozen=(0, 2, 3, 12, *range(17, 32)))


def test_entering_updated_and_operations_are_told_apart():
    """ShortV on 7B: 576 enter every layer, 234 are updated, which costs as much as 291."""
    assert SHORTV.average("llava15") == 576
    assert SHORTV.average("llava15", "updated") == 234
    assert SHORTV.average("llava15", "flops") == pytest.approx(290.7, abs=0.05)
    assert SHORTV.tokens_per_layer("llava15") == (576,) * 32
    assert SHORTV.updated_per_layer("llava15")[:4] == (0, 576, 0, 0)
    assert SHORTV.kv_bytes("llava15", text=10) == Budget().kv_bytes("llava15", text=10)


def test_the_share_of_a_frozen_token():
    assert frozen_share(find_backbone("llava15").decoder) == pytest.approx(0.166, abs=5e-4)
    assert frozen_share(find_backbone("qwen2_5_vl").decoder) == pytest.approx(0.0157, abs=1e-4)


def test_operations_of_a_frozen_layer_by_hand():
    mini = find_backbone("mini")
    width, mlp, tokens, text = 128, 208, 100, 20
    plain = Budget(dominant=tokens).flops("mini", text=text).prefill
    still = Budget(dominant=tokens, frozen=(5,)).flops("mini", text=text).prefill
    both, words = tokens + text, text
    full = both * (8 * width**2 + 6 * width * mlp) + 4 * both**2 * width
    part = words * (8 * width**2 + 6 * width * mlp) + 4 * words * both * width + tokens * 4 * width**2
    assert plain - still == full - part
    assert Budget(frozen=0).flops(mini, text=text).decode == Budget().flops(mini, text=text).decode


def test_tokens_of_a_late_entry_count_from_there():
    hidrop = Budget(layers=(10, 14, 16, 18, 24), keep=(215, 10, 5, 1, 0), entry=8)
    assert hidrop.tokens_per_layer("llava15")[6:12] == (0, 0, 576, 576, 215, 215)
    assert hidrop.average("llava15") == 64.0
    assert hidrop.boundaries(32) == (0, 8, 10, 14, 16, 18, 24)
    assert Budget(entry=0.25, frozen=0.5).entry_for(32) == 8
    assert Budget(entry=0.25, frozen=0.5).frozen_for(32) == tuple(range(16, 32))


def test_layers_without_visual_tokens_cost_nothing_for_them():
    budget = Budget(40, layers=(1, 6), keep=(16, 0), away=(2, 3))
    assert budget.tokens_per_layer("mini") == (40, 16, 0, 0, 16, 16, 0, 0)
    assert budget.average("mini") == 11
    assert budget.boundaries(8) == (0, 1, 2, 4, 6)
    assert budget.absences(8) == ((2, 4),)
    here = replace(budget, away=())
    text = Budget(40, layers=(1, 2), keep=(16, 0)).flops("mini", text=20)
    gap = here.flops("mini", text=20).prefill - budget.flops("mini", text=20).prefill
    tail = Budget(40, layers=(1, 4), keep=(16, 0)).flops("mini", text=20)
    assert gap == tail.prefill - text.prefill > 0
    assert (
        budget.kv_bytes("mini", text=20)[2:5]
        == Budget(40, layers=(1, 4), keep=(16, 0)).kv_bytes("mini", text=20)[4:6] + here.kv_bytes("mini", text=20)[4:5]
    )


def test_an_average_with_layers_without_visual_tokens():
    budget = Budget.solve(11.111, "mini", layers=(1, 6), ratios=(0.4, 0.0), away=(2, 3))
    assert budget.average("mini") == pytest.approx(11.111, abs=0.25)
    assert budget.tokens_per_layer("mini") == (41, 16, 0, 0, 16, 16, 0, 0)
    shape = shape_of(budget, find_backbone("mini"), "gap")
    assert shape.away == ((0.25, 0.5),)
    deep = Budget.solve(64, "llava15", schedule=shape)
    assert deep.away == tuple(range(8, 16)) and deep.layers == (4, 24)
    inside = fit_shape(
        PYRAMID, replace(shape, away=((0.125, 0.375),), layers=(0.5,), ratios=(0.5,)), find_backbone("mini"), "x"
    )
    assert inside.places(8) == (3, 4)


def test_counts_are_per_picture():
    budget = Budget(dominant=20, layers=(16,), keep=(4,))
    assert budget.tokens_per_layer("videollava")[15:17] == (160, 32)
    assert budget.drops(9, 3) == ((9, 9),)


@pytest.mark.parametrize("average", [192, 128, 64])
def test_duet_safe_has_its_mean_exactly(average):
    budget = Budget.solve(average, "llava15", schedule=SAFE)
    assert budget.average("llava15") == average
    assert [budget.tokens_per_layer("llava15")[layer] for layer in (0, 16, 24)] == [
        1.5 * average, 0.75 * average, 0.25 * average,
    ]  # fmt: skip


@pytest.mark.parametrize("depth_of", sorted(BACKBONES))
def test_nothing_of_ours_leaves_a_model_that_reads_late_without_a_picture(depth_of):
    backbone = find_backbone(depth_of)
    model = backbone if backbone.patches else backbone.with_patches(1280)
    average = model.full / 6
    for schedule in (DUET, SAFE, VSCAN):
        left = Budget.solve(average, model, schedule=schedule).tokens_per_layer(model)
        assert left[-1] > 0 or not backbone.reads_late
    assert backbone.reads_late == depth_of.startswith("qwen")


@pytest.mark.parametrize("name", [name for name in budgets() if name.startswith("qwen")])
def test_no_row_of_qwen_leaves(name):
    assert all(min(budget.ratios, default=1) > 0 for budget in find_row(name).settings.values())


def test_an_average_by_operations():
    frozen = Budget.solve(64, "llava15", schedule=VSCAN, ratios=(0.5,), frozen=16, measure="flops")
    assert frozen.average("llava15", "flops") == pytest.approx(64, abs=0.6)
    assert frozen.average("llava15") > 64
    late = Budget.solve(64, "llava15", stages=(1,), entry=8)
    assert late.entered("llava15") in (85, 86)


@pytest.mark.parametrize("own", [DUET, VSCAN])
def test_a_shape_for_a_method_with_both_stages(own):
    budget = resolve_budget(64.0, own, "llava15", shape="duet_safe")
    assert (budget.layers, budget.average("llava15")) == ((16, 24), 64)
    assert bool(budget.contextual) == (own is DUET)


def test_a_shape_for_a_method_with_one_stage():
    with pytest.raises(UserError, match=r"method scope has no stage 2.*stage1:scope\+stage2:duet_prune"):
        resolve_budget(64.0, PLAIN, "llava15", shape="duet_safe", method="scope")
    exit_ = shape_of(Budget(45, layers=(2,), ratios=(0.0,), frozen=(1,)), find_backbone("mini"), "exit")
    first = fit_shape(PLAIN, exit_, find_backbone("mini"), "scope")
    assert Budget.solve(11.25, "mini", schedule=first) == Budget(45, layers=(2,), ratios=(0.0,), frozen=(1,))
    inside = resolve_budget(64.0, PYRAMID, "llava15", shape="duet_safe")
    assert inside.layers == (1, 16, 24) and inside.average("llava15") == pytest.approx(64, abs=0.6)
    assert inside.ratios[2] == pytest.approx(inside.ratios[0] / 6, abs=1e-3)
    flat = resolve_budget(64.0, DUET, "llava15", shape="flat")
    assert (flat.tokens_per_layer("llava15"), flat.ratios) == ((64,) * 32, (1.0,))
    assert resolve_budget(flat, DUET, "llava15") == flat  # as `attach` takes it


def test_rows_with_a_shape(caplog):
    assert resolve_budget("llava15_64_safe", DUET, "llava15").average("llava15") == 64
    assert resolve_budget("llava15_64_safe", VSCAN, "llava15").layers == (16, 24)
    assert resolve_budget("llava15_64_safe", DUET, "llava15_13b").layers == (20, 30)
    with caplog.at_level(logging.WARNING, "duet.budget"):
        assert resolve_budget("llava15_64_safe", FLAT, "llava15", method="visionzip").layers == ()
    assert "visionzip has no stage 2 for its shape" in caplog.text


FILE = """
backbone: mini
budgets:
  found: {target: 11.111, source: duet schedule, shape: {entry: 0.125, layers: [0.375], ratios: [0.0], frozen: 0.25}}
"""
GAP = """
backbone: mini
budgets:
  gap: {target: 11.111, source: duet schedule, shape: {layers: [0.125, 0.75], ratios: [0.4, 0], away: [[0.25, 0.5]]}}
"""


def test_a_file_is_a_budget_and_a_shape(tmp_path):
    file = tmp_path / "found.yaml"
    file.write_text(FILE, encoding="utf-8")
    for name in (str(file), f"{file}:found"):
        budget = resolve_budget(name, PLAIN, "mini")
        assert (budget.entry, budget.layers, budget.ratios, budget.frozen) == (1, (3,), (0.0,), 2)
        assert budget.average("mini") == pytest.approx(11.111, abs=0.25)
    assert find_shape(str(file)).entry == 0.125
    assert resolve_budget(22.2, DUET, "mini", shape=f"{file}:found").entered("mini") == 89


def test_a_file_with_a_gap(tmp_path):
    file = tmp_path / "gap.yaml"
    file.write_text(GAP, encoding="utf-8")
    assert resolve_budget(str(file), PLAIN, "mini").away == ()  # no stage 2 for its drop
    assert resolve_budget(str(file), VSCAN, "mini").away == (2, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "is no file of budgets"),
        (FILE.replace("ratios: [0.0]", "ratio: [0.0]"), "unknown key 'ratio'; did you mean ratios"),
        (FILE.replace("frozen: 0.25", "frozen: 3"), "as shares of the depth"),
        (GAP.replace("[[0.25, 0.5]]", "[2, 3]"), "give a list of spans"),
        (GAP.replace("[[0.25, 0.5]]", "[[0.5, 0.25]]"), "the shares must ascend"),
        (GAP.replace("[[0.25, 0.5]]", "[[0.25, 2]]"), "as shares of the depth"),
        (FILE.replace("target: 11.111, ", ""), "found: 'target'"),
        (FILE + "  other: {target: 1, source: x}\n", "holds 2 budgets: name one"),
    ],
)
def test_what_is_wrong_with_a_file(tmp_path, content, message):
    file = tmp_path / "found.yaml"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        resolve_budget(str(file), PLAIN, "mini")


def test_a_shape_goes_with_an_average():
    for given in ("llava15_64", Budget(10)):
        with pytest.raises(UserError, match="goes with an average"):
            resolve_budget(given, DUET, "llava15", shape="duet_safe")
    with pytest.raises(UserError, match="unknown shape 'duet_save'; did you mean duet_safe"):
        resolve_budget(64.0, DUET, "llava15", shape="duet_save")
