"""One name for checkpointing, whichever the installed transformers has, and no warning about the other one."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from duet.config import ConfigError, build, load_config, read_mapping, save_config
from duet.train.adapters import add_lora
from duet.train.arguments import Recipe, TrainingArguments, read_elsewhere
from duet.train.start import load_start
from tests.small_world import random_model

RECIPES = sorted((Path(__file__).parents[3] / "configs" / "train").glob("*.yaml"))
START = {"model_name_or_path": random_model()}


def recipe(out: Path, **training: Any) -> Recipe:
    fixed = {"output_dir": str(out), "use_cpu": True, "report_to": "none"}
    return build(Recipe, {"model": START, "data": {"data_path": "rows.json"}, "training": {**fixed, **training}})


@pytest.mark.parametrize("name", ["activation_checkpointing", "gradient_checkpointing"])
def test_both_names_are_one_field_and_none_warns(name: str, tmp_path: Path) -> None:
    options = {"use_reentrant": False}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = recipe(tmp_path, **{name: True, f"{name}_kwargs": options})
        save_config(made, tmp_path / "recipe.yaml")
        again = load_config(Recipe, tmp_path / "recipe.yaml")
    for each in (made.training, again.training):
        assert each.activation_checkpointing is True and each.activation_checkpointing_kwargs == options
    assert recipe(tmp_path).training.activation_checkpointing is False


def test_two_values_of_one_field_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give activation_checkpointing alone"):
        recipe(tmp_path, activation_checkpointing=False, gradient_checkpointing=True)


@pytest.mark.skipif(not hasattr(TrainingArguments.__base__, "activation_checkpointing"), reason="5.17 has one name")
def test_a_saved_recipe_takes_another_value(tmp_path: Path) -> None:
    save_config(recipe(tmp_path, gradient_checkpointing=True), tmp_path / "recipe.yaml")
    for name in ("activation_checkpointing", "gradient_checkpointing"):
        again = load_config(Recipe, tmp_path / "recipe.yaml", [f"training.{name}=true"])
        assert again.training.activation_checkpointing is True
    off = load_config(Recipe, tmp_path / "recipe.yaml", ["training.activation_checkpointing=false"])
    assert off.training.activation_checkpointing is False


def test_our_recipes_have_the_new_name_and_none_warns() -> None:
    found = 0
    for path in RECIPES:
        text = path.read_text(encoding="utf-8")
        assert "gradient_checkpointing" not in text, path.name
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            made = read_elsewhere(read_mapping(path), path.name)
        found += made.training.activation_checkpointing is True
    assert found == 10


def test_an_adapter_is_added_without_a_warning_of_peft_s(tmp_path: Path) -> None:
    model, _ = load_start(recipe(tmp_path), Path(random_model()))
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        add_lora(model, {"r": 2})
