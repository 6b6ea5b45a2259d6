"""The pure functions against what the released codes chose on the same inputs (`tests/golden/reducers`).

All pictures, counts and sets of `../shared/golden/reducers` were compared once when these were written, with no
difference; one picture of each set is stored here.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from duet.baselines import scope, vscan
from duet.budget import Stage1
from duet.types import VisionStates
from tests.duet.baselines.inputs import GOLDEN, select, stored


def cases() -> list[Any]:
    """`(method, set, count, expected, options)` of every stored output."""
    found = []
    for file in ("scope", "divprune", "cdpruner", "vispruner", "mmtok", "holov", "vscan_stage1"):
        for key, expected in load_file(GOLDEN / f"{file}.safetensors").items():
            name, count, what = key.split(".", 2)
            # float32 rounding decides in VisPruner's rounds: the float64 run of the released code counts
            if what == "merged" or what.startswith("kept_r"):
                continue
            options: dict[str, Any] = {"alpha": 2.0} if what == "order_alpha2" else {}
            if what == "kept_qwen":
                options = {"text_temperature": 0.01}
            if what.startswith("kept_f64_r"):
                options = {"important_ratio": float(what.removeprefix("kept_f64_r"))}
            two = what == "kept_two_segments_row0"
            case = (file.removesuffix("_stage1"), name, int(count), expected, options, two)
            found.append(pytest.param(*case, id=f"{file}-{key}"))
    return found


@pytest.mark.parametrize(("name", "inputs", "count", "expected", "options", "two"), cases())
def test_equals_the_released_code(name, inputs, count, expected, options, two):
    given = stored(inputs)
    if two:
        text = given["clip_text_embeds"]
        given["clip_text_embeds"] = torch.stack([text[0], text[0].flip(-1)])
    assert select(name, count, given, **options).tolist() == expected.sort(-1).values.tolist()


@pytest.mark.parametrize(("inputs", "count"), [("base", 64), ("base", 192), ("odd", 117)])
def test_scope_picks_in_the_released_order(inputs, count):
    expected = load_file(GOLDEN / "scope.safetensors")[f"{inputs}.{count}.order"]
    given = stored(inputs)
    order = scope.order(keep=count, features=given["features"], cls_attention=given["cls_attention"])
    assert order.tolist() == expected.tolist()


def test_vscan_merges_as_released():
    given = stored("base")
    scores = {name: given[name] for name in ("cls_attention", "cls_attention_shallow")}
    states = VisionStates(given["features"], scores=scores, projected=given["projected"], grid=(1, 24, 24))
    edit = vscan.VScan()(states, Stage1(96))
    merged = load_file(GOLDEN / "vscan_stage1.safetensors")["base.96.merged"]
    torch.testing.assert_close(edit.apply(given["projected"]), merged, atol=1e-5, rtol=0)
    assert edit.projected
