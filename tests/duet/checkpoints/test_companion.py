"""CLIP's text tower for a model: only the checkpoint that its tower can come from."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from transformers import BertConfig, CLIPConfig

from duet.checkpoints.companion import load_companion
from duet.errors import UserError

TOWER = SimpleNamespace(hidden_size=32, image_size=224, patch_size=14)


def test_a_tower_of_another_shape_has_no_default():
    with pytest.raises(UserError, match=r"this model's tower is not the usual one: name the CLIP checkpoint"):
        load_companion(None, TOWER)


def test_a_checkpoint_of_another_kind_or_width(tmp_path):
    BertConfig().save_pretrained(tmp_path / "bert")
    with pytest.raises(UserError, match="is a bert checkpoint; the companion of a CLIP tower is a CLIP model"):
        load_companion(str(tmp_path / "bert"), TOWER)
    CLIPConfig(vision_config={"hidden_size": 48}).save_pretrained(tmp_path / "clip")
    with pytest.raises(UserError, match="has a tower of width 48, the model's is 32"):
        load_companion(str(tmp_path / "clip"), TOWER)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"cannot be loaded .*--companion PATH"):
        load_companion(str(tmp_path / "nowhere"), TOWER)
