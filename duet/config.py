"""Configurations: a YAML file and `a.b=c` overrides -> a (nested) dataclass; written beside every result.

    recipe = load_config(Recipe, "configs/train/mini_pretrain.yaml", ["training.learning_rate=1e-3"])

Keys that no dataclass field answers to are errors that name the nearest one, so that a misspelt option cannot be
ignored. Values are YAML scalars; a number written like 1e-3, which YAML reads as text, is understood where a float
is expected.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from duet.errors import UserError, suggest

T = TypeVar("T")


class ConfigError(UserError):
    """A configuration that cannot be used; the message says which key or file, and what to do."""


def load_config(cls: type[T], path: str | Path, overrides: Sequence[str] = ()) -> T:
    """Read a YAML file into the dataclass `cls`, after applying `a.b=c` overrides."""
    return build(cls, override(read_mapping(path), overrides), str(path))


def read_mapping(path: str | Path) -> dict[str, Any]:
    """Content of a YAML file of keys and values; an empty one has none.

    Raises:
        ConfigError: no such file, no YAML, or no mapping.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"no such configuration file: {path}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a mapping of keys to values, not a {type(values).__name__}")
    return values


def override(values: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """A copy of nested `values` with every "a.b=c" set; c is read as YAML."""
    result = _copied(values)
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name:
            raise ConfigError(f"override {assignment!r} must look like section.key=value")
        *sections, key = name.split(".")
        place = result
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise ConfigError(f"override {assignment!r}: {section!r} is a value, not a section")
        place[key] = parse_value(text, f"override {name}")
    return result


def parse_value(text: str, source: str) -> Any:
    """A value of the command line, read as YAML."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: {text!r} is not valid YAML") from error


def build(cls: type[T], values: Mapping[str, Any], source: str = "configuration") -> T:
    """Make the dataclass `cls` from a mapping; nested dataclasses from nested mappings."""
    hints = get_type_hints(cls)
    fields = {field.name for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    arguments = {}
    for key, value in values.items():
        if key not in fields:
            raise ConfigError(f"{source}: unknown key {key!r} in {cls.__name__}; {suggest(str(key), sorted(fields))}")
        arguments[key] = _converted(hints[key], value, f"{source}: {key}")
    try:
        return cls(**arguments)
    except TypeError as error:
        raise ConfigError(f"{source}: {error}") from error


def save_config(config: Any, path: str | Path) -> None:
    """Write a dataclass as YAML, readable by `load_config`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(to_dict(config), sort_keys=False), encoding="utf-8")


def to_dict(config: Any) -> Any:
    """Plain dicts, lists and scalars of a nested dataclass."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        fields = (field.name for field in dataclasses.fields(config) if field.init)
        return {name: to_dict(getattr(config, name)) for name in fields}
    if isinstance(config, Mapping):
        return {key: to_dict(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [to_dict(value) for value in config]
    if isinstance(config, Enum):
        return config.value
    return config if isinstance(config, (str, int, float, bool, type(None))) else str(config)


def _copied(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copied(value) if isinstance(value, Mapping) else value for key, value in values.items()}


def _converted(kind: Any, value: Any, where: str) -> Any:
    """`value` as the annotated type where that is unambiguous, else as it is."""
    options = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    for option in options:
        if dataclasses.is_dataclass(option) and isinstance(value, Mapping):
            return build(option, value, where)  # type: ignore[arg-type]
        if get_origin(option) is tuple and isinstance(value, list):
            return tuple(value)
    if float in options and str not in options and isinstance(value, str):
        try:
            return float(value)
        except ValueError as error:
            raise ConfigError(f"{where}: expected a number, got {value!r}") from error
    return value
