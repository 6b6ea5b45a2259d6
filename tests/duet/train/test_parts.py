"""Freezing, and recipe files."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from duet.config import ConfigError, load_config
from duet.train.arguments import Recipe
from duet.train.freeze import freeze
from duet.train.run import main

RECIPES = sorted((Path(__file__).parents[3] / "configs" / "train").glob("*.yaml"))


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.vision_tower = nn.Linear(2, 2)
        self.vision_tower_extra = nn.Linear(2, 2)
        self.multi_modal_projector = nn.Linear(2, 3)


def learned(model: nn.Module) -> set[str]:
    return {name.split(".")[0] for name, value in model.named_parameters() if value.requires_grad}


def test_freeze_by_prefix_stops_at_the_dot() -> None:
    model = Small()
    assert freeze(model, ["vision_tower"]) == 6 + 9
    assert learned(model) == {"vision_tower_extra", "multi_modal_projector"}


def test_projector_only_and_back() -> None:
    model = Small()
    assert freeze(model, projector_only=True) == 9
    assert learned(model) == {"multi_modal_projector"}
    assert freeze(model) == 21


def test_freeze_errors() -> None:
    with pytest.raises(ValueError, match="no parameter is under 'towers'"):
        freeze(Small(), ["towers"])
    with pytest.raises(ValueError, match="nothing is left"):
        freeze(Small(), ["vision_tower", "vision_tower_extra", "multi_modal_projector"])


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_file_is_valid(path: Path, tmp_path: Path) -> None:
    recipe = load_config(Recipe, path, [f"training.output_dir={tmp_path}", "training.bf16=false"])
    assert recipe.model.model_name_or_path
    assert recipe.data.data_path


def test_an_unknown_key_in_a_recipe_names_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("training: {output_dir: out, learning_rat: 1}\n")
    with pytest.raises(ConfigError, match="did you mean learning_rate"):
        load_config(Recipe, path)


def test_the_command_reports_a_mistake_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nowhere.yaml"]) == 2
    assert "no such configuration file: nowhere.yaml" in capsys.readouterr().err
