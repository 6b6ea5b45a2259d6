"""Names, switches and budgets: what `duet.attach` builds, and what it says about mistakes."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

import duet
from duet.checkpoints.files import CheckpointError
from duet.engine.attachment import attached
from duet.errors import UserError
from duet.families import find_family, model_types
from duet.loading import find_loader
from duet.method_table import ALIASES
from duet.pyramiddrop.duet_prune import DuetPrune
from duet.pyramiddrop.pyramiddrop import PyramidDrop
from duet.visionzip.duet_merge import DuetMerge
from duet.visionzip.zip_merge import VisionZip
from tests import golden_llava
from tests.tiny_llava import BUDGET, fill_salient, tiny_llava

FIRST, SECOND = BUDGET.only(1), BUDGET.only(2)
SALIENT = {"salient": fill_salient}
MERGE_AND_SCORE = {"contextual_merge": "visionzip", "score": "column_mean"}


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_llava()


@pytest.mark.parametrize(
    ("method", "budget", "reducer", "pruner", "switches"),
    [
        ("none", None, None, None, {}),
        ("visionzip", FIRST, VisionZip(), None, {}),
        ("visionzip_c", FIRST, DuetMerge(), None, {}),
        ("pyramiddrop", SECOND, None, PyramidDrop(), {}),
        ("pyramiddrop_all", SECOND, None, DuetPrune("all"), {}),
        ("pyramiddrop_s", SECOND, None, DuetPrune("salient"), SALIENT),
        ("duet_vanilla", BUDGET, VisionZip(), PyramidDrop(), {}),
        ("duet_c", BUDGET, DuetMerge(), PyramidDrop(), {}),
        ("duet_c_all", BUDGET, DuetMerge(), DuetPrune("all"), {}),
        ("duet_c_s", BUDGET, DuetMerge(), DuetPrune("salient"), SALIENT),
        ("duet", BUDGET, DuetMerge(), DuetPrune("all"), {}),
        ("duet", BUDGET, DuetMerge("paper"), DuetPrune("all"), {"contextual_merge": "paper"}),
        ("duet", BUDGET, VisionZip("column_mean"), DuetPrune("all"), MERGE_AND_SCORE),
        ("visionzip", FIRST, VisionZip("column_mean"), None, {"score": "column_mean"}),
        ("duet", BUDGET, DuetMerge(), PyramidDrop(), {"text_guidance": "last"}),
        ("pyramiddrop", SECOND, None, DuetPrune("attention"), {"text_guidance": "attention"}),
    ],
)  # fmt: skip
def test_a_method_is_two_parts(model, method, budget, reducer, pruner, switches):
    assert duet.attach(model, method, budget, **switches) is model
    parts = attached(model).compression
    assert (parts.reducer, parts.pruner) == (reducer, pruner)
    assert parts.method == ALIASES.get(method, method)
    assert parts.budget == (budget or duet.Budget())
    assert parts.layers == ((2, 4) if pruner else ())
    assert parts.renumber


def test_positions(model):
    duet.attach(model, "duet", BUDGET, positions="keep")
    assert not attached(model).compression.renumber


def test_layers_as_shares_of_the_depth(model):
    duet.attach(model, "pyramiddrop", duet.Budget(layers=(0.5, 0.75), ratios=(0.5, 0.0)))
    assert attached(model).compression.layers == (3, 5)


def test_a_named_budget_gives_each_method_its_stages():
    model = golden_llava.tiny_llava()
    duet.attach(model, "duet", "llava15_192")
    assert attached(model).compression.budget == duet.Budget(300, 7, layers=(16, 24), ratios=(0.5, 0.0))
    duet.attach(model, "visionzip", "llava15_192")
    assert attached(model).compression.budget.layers == ()
    duet.attach(model, "pyramiddrop", 128)
    assert attached(model).compression.budget.average("llava15") == pytest.approx(128, abs=0.5)
    duet.attach(model, "none", "llava15_192")
    assert attached(model).compression.budget == duet.Budget()


@pytest.mark.parametrize(
    ("method", "budget", "switches", "message"),
    [
        ("dute", BUDGET, {}, r"unknown method 'dute'; did you mean duet"),
        ("zzz", BUDGET, {}, r"unknown method 'zzz'; choose one of none, visionzip"),
        ("duet", BUDGET, {"position": "keep"}, r"unknown switch 'position' of .*; did you mean positions"),
        ("duet", BUDGET, {"positions": "shift"}, r"positions is 'shift'; choose renumber, keep"),
        ("duet", BUDGET, {"contextual_merge": "mean"}, r"contextual_merge is 'mean'; choose released, paper, vis"),
        ("duet", BUDGET, {"score": "max"}, r"score is 'max'; choose cls_row, column_mean"),
        ("duet", BUDGET, {"text_guidance": "first"}, r"text_guidance is 'first'; choose last, all, salient, attention"),
        ("pyramiddrop", SECOND, {"score": "cls_row"}, r"pyramiddrop has no stage 1; score would do nothing"),
        ("visionzip", FIRST, {"text_guidance": "all"}, r"visionzip has no stage 2; text_guidance would do nothing"),
        ("duet", BUDGET, {"salient": fill_salient}, r"do nothing without text_guidance='salient'"),
        ("duet", BUDGET, {"salient_rule": "pos"}, r"do nothing without text_guidance='salient'"),
        ("duet_c_s", BUDGET, {}, r"pass tokenizer=processor\.tokenizer"),
        ("duet", None, {}, r"duet_c_all needs a budget"),
        ("duet", True, {}, r"budget is True; give a name of duet\.budgets\(\), an average, or a duet\.Budget"),
        ("duet", 192, {}, r"an average of 192 visual tokens cannot be reached"),
        ("duet", BUDGET, {"alpha": 1.0}, r"unknown switch 'alpha' of method duet_c_all"),
        ("pyramiddrop", SECOND, {"newlines": "drop"}, r"this model has none"),
        ("duet", "llava15_193", {}, r"unknown budget 'llava15_193'; did you mean llava15_19"),
        ("duet", "llava15_192", {}, r"llava15_192 is made for llava15, not for this model: an average of 192"),
        ("none", "llava15_193", {}, r"unknown budget 'llava15_193'"),
        ("duet", FIRST, {}, r"has a stage 2, but the budget has no counts for it: give layers, ratios"),
        ("duet", SECOND, {}, r"has a stage 1, but the budget has no counts for it: give dominant, contextual"),
        ("visionzip", BUDGET, {}, r"visionzip has no stage 2 .* after layers \(2, 4\): use budget\.only\(1\)"),
        ("pyramiddrop", BUDGET, {}, r"pyramiddrop has no stage 1; dominant, contextual would do nothing"),
        ("none", FIRST, {}, r"none has no stage 1"),
        ("none", SECOND, {}, r"none has no stage 2"),
        ("pyramiddrop", duet.Budget(layers=(6,), ratios=(0.5,)), {}, r"the language model has 6 layers"),
    ],
)  # fmt: skip
def test_mistakes_are_named(model, method, budget, switches, message):
    duet.attach(model, "none")
    with pytest.raises(UserError, match=message):
        duet.attach(model, method, budget, **switches)
    assert attached(model).compression.method == "none"


@pytest.mark.parametrize(
    "described", [{"budget": "llava15_192"}, {"positions": "keep"}, SALIENT, {"budget": BUDGET, "score": "cls_row"}]
)
def test_compression_without_a_method_is_refused_before_loading(described):
    with pytest.raises(UserError, match=f"without a method {', '.join(described)} would do nothing"):
        duet.load("./nowhere", **described)


LLAVA, VIDEO_LLAVA = "duet.llava.model.builder:load", "duet.videollava.model.builder:load"


@pytest.mark.parametrize(
    ("settings", "loader"),
    [
        ({"model_type": "llava", "vision_config": {}}, LLAVA),
        ({"model_type": "llava_next", "vision_config": {}}, LLAVA),
        ({"model_type": "llava", "mm_vision_tower": "clip"}, LLAVA),
        ({"model_type": "llava_llama", "mm_vision_tower": "clip"}, LLAVA),
        ({"model_type": "llava_mistral", "mm_vision_tower": "clip", "mm_video_tower": None}, LLAVA),
        ({"mm_vision_tower": "clip"}, LLAVA),
        ({"model_type": "llava", "mm_image_tower": "a", "mm_video_tower": "b"}, VIDEO_LLAVA),
        ({"model_type": "video_llava", "vision_config": {}, "mm_vision_tower": "left over"}, VIDEO_LLAVA),
        ({"model_type": "qwen2_vl", "vision_config": {}}, "duet.qwen2_5_vl.loading:load"),
    ],
)
def test_config_json_says_who_loads_a_checkpoint(tmp_path, settings, loader):
    if settings is not None:
        (tmp_path / "config.json").write_text(json.dumps(settings))
    assert find_loader(str(tmp_path), None) == loader


@pytest.mark.parametrize("settings", [{"model_type": "bert"}, {"hidden_size": 8}])
def test_checkpoints_of_other_families(tmp_path, settings):
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError) as caught:
        duet.load(str(tmp_path))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}: model_type in config.json is {settings.get('model_type')!r}; ")
    assert all(name in message for name in (*model_types(), "mm_vision_tower", "mm_video_tower"))


def test_models_that_are_not_supported(model):
    with pytest.raises(UserError, match="Linear is not supported; supported are LlavaForConditionalGeneration"):
        duet.attach(torch.nn.Linear(2, 2), "none")
    duet.detach(duet.attach(model, "none"))
    kind = model.config.vision_config.model_type
    model.config.vision_config.model_type = "pixtral"
    try:
        with pytest.raises(UserError, match="the vision tower is pixtral"):
            duet.attach(model, "none")
    finally:
        model.config.vision_config.model_type = kind


def test_the_model_is_found_inside_a_wrapper(model):
    wrapper = torch.nn.Sequential(model)
    found, family = find_family(wrapper)
    assert found is model and family.name == "LLaVA-1.5"
    assert duet.attach(wrapper, "visionzip", FIRST) is wrapper
    assert attached(wrapper).model is model
    duet.detach(wrapper)


def test_an_own_finder_of_salient_tokens_and_a_rule_contradict_each_other():
    model = tiny_llava()
    with pytest.raises(UserError, match="salient_rule does nothing beside a finder of your own"):
        duet.attach(model, "duet_c_s", BUDGET, salient=fill_salient, salient_rule="stopwords")
