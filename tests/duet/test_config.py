"""Configurations: nesting, overrides, and errors that name the key."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from duet.config import ConfigError, load_config, override, save_config


@dataclass
class Inner:
    rate: float = 0.1
    names: tuple[str, ...] = ()


@dataclass
class Outer:
    inner: Inner = field(default_factory=Inner)
    steps: int | None = None
    title: str = "run"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text("inner: {rate: 1e-3, names: [a, b]}\nsteps: 5\n")
    return path


def test_reads_nested_values_and_numbers_yaml_takes_for_text(file: Path) -> None:
    config = load_config(Outer, file)
    assert config == Outer(Inner(0.001, ("a", "b")), 5)


def test_overrides_reach_into_sections(file: Path) -> None:
    config = load_config(Outer, file, ["inner.rate=2", "steps=null", "title=other"])
    assert (config.inner.rate, config.steps, config.title) == (2, None, "other")


def test_override_leaves_its_argument_alone() -> None:
    values = {"a": {"b": 1}}
    assert override(values, ["a.b=2"]) == {"a": {"b": 2}}
    assert values == {"a": {"b": 1}}


def test_saved_config_reads_back_equal(file: Path, tmp_path: Path) -> None:
    config = load_config(Outer, file)
    save_config(config, tmp_path / "saved" / "config.yaml")
    assert load_config(Outer, tmp_path / "saved" / "config.yaml") == config


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("inner.ratee=1", "did you mean rate"),
        ("stepz=1", "did you mean steps"),
        ("qqqqqq=1", "choose one of"),
        ("steps", "must look like"),
        ("title.x=1", "must look like|is a value"),
        ("inner.rate=fast", "expected a number"),
        ("inner.rate={a: 1", "override inner.rate: '{a: 1' is not valid YAML"),
    ],
)
def test_a_wrong_override_says_what_is_wrong(file: Path, assignment: str, message: str) -> None:
    file.write_text(file.read_text() + "title: here\n")
    with pytest.raises(ConfigError, match=message):
        load_config(Outer, file, [assignment])


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such configuration file"):
        load_config(Outer, tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1,")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(Outer, broken)
    broken.write_text("- 1")
    with pytest.raises(ConfigError, match="mapping"):
        load_config(Outer, broken)
