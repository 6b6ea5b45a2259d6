"""Configurations by name, and the small world: beside the source, as an installed package, or absent."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from duet import shipped
from duet.checkpoints.files import resolve_folder
from duet.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("given", ["quickstart", "configs/eval/quickstart.yaml"])
def test_a_grid_by_name_from_any_folder(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shipped.find_config(given, "eval").samefile(ROOT / "configs/eval/quickstart.yaml")


def test_a_file_comes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("quickstart").write_text("tasks: []")
    assert shipped.find_config("quickstart", "eval") == Path("quickstart")
    # with a suffix or a folder it is a path: its reader says that it is missing
    assert shipped.find_config("mine.yaml", "eval") == Path("mine.yaml")
    assert shipped.find_config("grids/quickstart", "eval") == Path("grids/quickstart")


def test_an_unknown_name_is_told_the_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no configuration of that name.*quickstart"):
        shipped.find_config("quikstart", "eval")


def test_the_small_models_have_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve_folder("llava-mini") == shipped.default_model()
    assert resolve_folder("playground/mini/checkpoints/llava-mini") == shipped.default_model()
    (tmp_path / "llava-mini").mkdir()
    assert resolve_folder("llava-mini") == Path("llava-mini")


@pytest.fixture
def no_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "_PACKAGE", tmp_path / "site-packages" / "duet")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.startswith("duet_mini")]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


def test_without_a_small_world(no_checkout):
    assert shipped.small_world() is None and shipped.small_models() == {}
    with pytest.raises(UserError, match=r'--model, or pip install "duet-vlm\[mini\]"'):
        shipped.default_model()
    with pytest.raises(UserError, match=r"duet-vlm\[mini\]"):
        shipped.small_module("draw")


def test_the_installed_small_world(no_checkout, monkeypatch):
    monkeypatch.chdir(no_checkout)
    package = no_checkout / "duet_mini"
    (package / "checkpoints" / "llava-mini").mkdir(parents=True)
    (package / "checkpoints" / "llava-mini" / "config.json").write_text("{}")
    (package / "__init__.py").touch()
    (package / "draw.py").write_text("WHERE = __name__")
    assert shipped.default_model() == package / "checkpoints" / "llava-mini"
    assert shipped.small_module("draw").WHERE == "duet_mini.draw"
    for given in ("llava-mini-hops", "playground/mini/checkpoints/llava-mini-hops"):
        with pytest.raises(UserError, match="llava-mini-hops is installed, only llava-mini; all are in playground/"):
            resolve_folder(given)
    assert shipped.find_small_model("someone/llava-mini-hops") is None


def test_a_small_model_without_the_small_world(no_checkout, monkeypatch):
    monkeypatch.chdir(no_checkout)
    with pytest.raises(UserError, match=r"duet-vlm\[mini\]"):
        resolve_folder("llava-mini")
