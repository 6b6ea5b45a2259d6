"""Options of every family's `load`: an unknown one is refused before anything is read, and the message names it."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from duet.checkpoints.assemble import original_options
from duet.checkpoints.options import LoadOptions, check_options
from duet.errors import UserError

LOADERS = pytest.mark.parametrize(
    "module", ["duet.llava.model.builder", "duet.videollava.model.builder", "duet.qwen2_5_vl.loading"]
)


@LOADERS
def test_a_misspelt_option_is_named_before_anything_is_read(module: str, tmp_path: Path):
    with pytest.raises(UserError, match="unknown loading option 'atn_implementation'; did you mean attn_impl"):
        import_module(module).load(tmp_path, dtype="float32", atn_implementation="eager")


@LOADERS
def test_an_option_like_no_other_lists_all(module: str, tmp_path: Path):
    with pytest.raises(UserError, match="unknown loading option 'qqq'; choose one of dtype, device, device_map, "):
        import_module(module).load(tmp_path, qqq=1)


def test_options_of_another_family_are_unknown(tmp_path: Path):
    with pytest.raises(UserError, match="unknown loading option 'model_base'"):
        import_module("duet.qwen2_5_vl.loading").load(tmp_path, model_base="base")
    with pytest.raises(UserError, match="unknown loading option 'vision_tower'; did you mean video_tower"):
        import_module("duet.videollava.model.builder").load(tmp_path, vision_tower="clip")


@LOADERS
def test_none_is_the_same_as_leaving_an_option_out(module: str):
    check_options(dict.fromkeys(LoadOptions.__annotations__), LoadOptions)
    with pytest.raises(UserError, match=r"no checkpoint at '\./nowhere'"):
        import_module(module).load("./nowhere", **dict.fromkeys(LoadOptions.__annotations__))


def test_what_the_original_entry_points_make_is_known():
    check_options(original_options(False, False, "auto", "cpu", True, {}), LoadOptions)
