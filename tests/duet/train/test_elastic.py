"""Budgets drawn per step: reading the choices, the draws, what is attached, and a run under them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerControl, TrainerState

import duet
from duet.budget import Budget
from duet.config import ConfigError, build
from duet.engine.attachment import attached
from duet.errors import UserError
from duet.registry import compress
from duet.train.arguments import Recipe
from duet.train.elastic import Between, ElasticBudget, Shaped, check_weights, read_choices
from duet.train.heldout import all_tokens
from duet.train.run import run
from playground.mini.generate import write_train
from tests.families import FAMILIES
from tests.small_world import random_model
from tests.tiny_llava import collate, make_row, tiny_llava
from tests.training import logged


def tiny_llava_batch() -> dict[str, Any]:
    return FAMILIES["llava"].collate(FAMILIES["llava"].rows[:2], side="right")


def test_choices_are_names_averages_counts_ranges_and_none() -> None:
    given = ["none", "mini_ninth", 22.2, {"average": [12, 40]}, {"dominant": 4, "layers": [1], "ratios": [0.0]}]
    counts = Budget(dominant=4, layers=(1,), ratios=(0.0,))
    assert read_choices(given) == [None, "mini_ninth", 22.2, Between(12, 40), counts]
    assert read_choices({"average": [3, 3]}) == [Between(3, 3)]
    shaped = [{"average": [12, 40], "shape": "duet_safe"}, {"average": 7.5, "shape": "flat"}]
    assert read_choices(shaped) == [Between(12, 40, "duet_safe"), Shaped(7.5, "flat")]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "empty list"),
        (["mini_nineth"], "mini_nineth"),
        ([{"average": [9, 4]}], "the smaller one first"),
        ([{"average": [1.5, 4]}], "two whole numbers"),
        ([{"average": 4}], "two whole numbers"),
        ([0.0], "average of 0"),
        ([True], "is no budget"),
        ([{"dominant": 4, "average": [1, 2]}], "average"),
        ([{"average": [1, 2], "shape": "round"}], "unknown shape 'round'"),
        ([{"average": "mini_ninth", "shape": "flat"}], "give a number of tokens"),
        ([{"dominant": 4, "shape": "flat"}], "goes with an average"),
    ],
)
def test_an_unusable_choice_is_named(given: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        read_choices(given)


def test_a_list_of_nothing_but_all_tokens_is_refused_with_the_recipe(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="method: none"):
        run(_recipe(tmp_path, ["none"]))


def _elastic(choices: list[Any], seed: int = 0) -> tuple[Any, ElasticBudget]:
    model = tiny_llava()

    def make(budget: Any) -> Any:
        return compress(model, "duet", budget)

    return model, ElasticBudget(model, read_choices(choices), make, seed)


def test_draws_depend_on_seed_and_step_alone_and_reach_every_choice() -> None:
    choices = ["none", {"average": [3, 5]}, {"dominant": 4, "layers": [1], "ratios": [0.0]}]
    drawn = [_elastic(choices)[1].draw(step) for step in range(60)]
    again = _elastic(choices)[1]
    assert [again.draw(step) for step in reversed(range(60))] == drawn[::-1]
    assert [_elastic(choices, seed=1)[1].draw(step) for step in range(60)] != drawn
    assert set(map(repr, drawn)) == {"None", "3", "4", "5", repr(Budget(dominant=4, layers=(1,), ratios=(0.0,)))}


def test_every_step_attaches_its_budget_and_the_last_choice_follows() -> None:
    model, elastic = _elastic(["none", {"dominant": 4, "layers": [1], "ratios": [0.0]}])
    state, control = TrainerState(), TrainerControl()
    for step in range(8):
        state.global_step = step
        elastic.on_step_begin(None, state, control)  # type: ignore[arg-type]
        found = attached(model).compression
        drawn = elastic.draw(step)
        assert found.budget == (drawn or Budget())
        assert (found.reducer is None) == (drawn is None)
        elastic.on_step_end(None, state, control)  # type: ignore[arg-type]
        assert attached(model).compression.budget == elastic.default


def test_a_step_with_all_tokens_merges_none() -> None:
    model, batch = tiny_llava(), collate([make_row(1, 6)])
    stock = model(**batch).logits

    def make(budget: Any) -> Any:
        return compress(model, "duet_cover", budget, attention="proportional")

    elastic = ElasticBudget(model, [Budget(dominant=4, layers=(1,), ratios=(0.5,)), None], make, seed=0)
    elastic.use(None)
    assert torch.equal(model(**batch).logits, stock)


def _recipe(root: Path, budget: Any) -> Recipe:
    rows = [{"id": "a", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yes"}]}] * 4
    (root / "rows.json").write_text(json.dumps(rows))
    training = {"output_dir": str(root / "out"), "use_cpu": True, "disable_tqdm": True, "max_steps": 2}
    return build(
        Recipe,
        {
            "model": {"model_name_or_path": random_model()},
            "data": {"data_path": str(root / "rows.json"), "image_folder": str(root)},
            "compression": {"method": "duet", "budget": budget},
            "training": {**training, "per_device_train_batch_size": 2, "logging_steps": 1},
        },
    )


def test_duet_cover_with_proportional_attention_and_shapes_runs_in_the_loop(tmp_path: Path) -> None:
    """Steps with all tokens, and held-out rows with all tokens, count every patch once."""
    write_train(tmp_path / "world", 8, seed=0, watch=1)
    budgets = [
        "none",
        {"average": [8, 12]},
        {"average": [20, 22], "shape": "flat"},
        {"dominant": 36, "contextual": 0, "layers": [1, 2, 3], "keep": [16, 10, 0]},
        {"dominant": 30, "contextual": 0, "layers": [2], "keep": [9], "frozen": [3]},
        {"dominant": 36, "contextual": 0, "layers": [1], "keep": [9], "away": [2]},
    ]
    switches = {"positions": "keep", "attention": "proportional", "relevance": 0.5}
    training = {"output_dir": str(tmp_path / "out"), "use_cpu": True, "disable_tqdm": True, "max_steps": 12, "seed": 1}
    data = {"data_path": str(tmp_path / "world" / "finetune.json"), "image_folder": str(tmp_path / "world" / "images")}
    made = build(
        Recipe,
        {
            "model": {"model_name_or_path": random_model()},
            "data": {**data, "eval_data_path": str(tmp_path / "world" / "watch.json"), "eval_every": 12},
            "compression": {"method": "duet_cover", "switches": switches, "budget": budgets},
            "training": {**training, "per_device_train_batch_size": 2, "logging_steps": 1, "save_strategy": "no"},
        },
    )
    run(made)
    lines = logged(tmp_path / "out")
    seen = {line.get("visual_tokens") for line in lines if "loss" in line}
    assert {100, 15.5, 19.5, 13.5} <= seen and seen & {20, 21, 22}  # means over four layers
    setting = json.loads((tmp_path / "out" / "duet_config.json").read_text())
    assert setting["switches"] == switches and setting["trained"][0] is None
    assert setting["trained"][2] == {"average": [20, 22], "shape": "flat"}
    # and the trained checkpoint opens so
    model, _ = duet.load(str(tmp_path / "out"))
    found = attached(model).compression
    assert found.proportional and not found.with_all_tokens().proportional


@pytest.mark.parametrize("more", [{"frozen": [3]}, {"away": [2]}, {"entry": 1}])
def test_all_tokens_are_the_stock_model_whatever_the_default_budget_is(more: dict[str, Any]) -> None:
    model = tiny_llava()
    batch = tiny_llava_batch()
    with torch.no_grad():
        told = batch["attention_mask"].bool()
        stock = model(**batch).logits[told]
        later = {"layers": [2], "keep": [9]} if "entry" in more else {"layers": [1], "keep": [9]}
        duet.attach(model, "duet_cover", Budget(dominant=12, contextual=0, **later, **more), attention="proportional")
        with all_tokens(model):
            assert torch.allclose(model(**batch).logits[told], stock, atol=1e-5)
        assert not torch.allclose(model(**batch).logits[told], stock, atol=1e-3)


def test_weights_say_how_likely_a_budget_is() -> None:
    model, _ = _elastic(["none", 5])
    choices = read_choices(["none", 5, 4])

    def make(budget: Any) -> Any:
        return compress(model, "duet", budget)

    elastic = ElasticBudget(model, choices, make, 0, [6, 3, 1])
    drawn = [elastic.draw(step) for step in range(500)]
    shares = [sum(each == choice for each in drawn) / 500 for choice in choices]
    assert shares == pytest.approx([0.6, 0.3, 0.1], abs=0.06)
    for weights, told in (([1, 2], "2 weights for 3 budgets"), ([1, 2, 0], "every weight is above 0")):
        with pytest.raises(ConfigError, match=told):
            check_weights(weights, choices)


def test_every_budget_is_stored_and_a_default_is_attached_without_touching_hooks() -> None:
    counts = {"dominant": 4, "layers": [1], "ratios": [0.0]}
    model, elastic = _elastic([counts, {"average": [3, 5]}, "none"])
    hooks = {name: len(module._forward_pre_hooks) for name, module in model.named_modules()}
    setting = attached(model).setting
    assert elastic.default == 3 and setting.budget == attached(model).compression.budget
    assert setting.trained[0]["dominant"] == 4 and setting.trained[1:] == ({"average": [3, 5]}, None)
    elastic.use(None)
    assert attached(model).compression.reducer is None
    assert attached(model).setting is setting  # what is saved does not depend on the step
    elastic.use(5)
    assert hooks == {name: len(module._forward_pre_hooks) for name, module in model.named_modules()}
