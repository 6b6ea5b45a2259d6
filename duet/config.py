"""Configurations: a YAML file and `a.b=c` overrides -> a (nested) dataclass; saved with every result.

    recipe = load_config(Recipe, "configs/train/mini_pretrain.yaml", ["training.learning_rate=1e-3"])

Unknown keys are errors that name the nearest field, so a misspelt option is never ignored. Values are checked against
the fields' annotations: text in place of a number, or nan, is an error that names file and key. Numbers like 1e-3,
which YAML reads as text, are accepted.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from duet.errors import UserError, suggest
from duet.files import blame, parse_yaml, read_yaml

T = TypeVar("T")


class ConfigError(UserError):
    """An unusable configuration; the message names the key or file and says what to do."""


def load_config(cls: type[T], path: str | Path, overrides: Sequence[str] = ()) -> T:
    """Read a YAML file into the dataclass `cls`, after applying `a.b=c` overrides."""
    return build(cls, override(read_mapping(path), overrides), str(path))


def read_mapping(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file; empty for an empty file.

    Raises:
        ConfigError: no such file, not YAML, or not a mapping.
    """
    path = Path(path)
    values = read_yaml(path, ConfigError, "configuration file")
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a mapping of keys to values, not a {type(values).__name__}")
    return values


def override(values: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """A copy of nested `values` with every "a.b=c" applied; c is parsed as YAML."""
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
    """A value from the command line, parsed as YAML."""
    return parse_yaml(text, f"{source}: {text!r}", ConfigError)


def build(cls: type[T], values: Mapping[str, Any], source: str = "configuration") -> T:
    """Make the dataclass `cls` from a mapping; nested dataclasses from nested mappings.

    Args:
        cls: the dataclass.
        values: by field.
        source: start of every message: the file, or the section in it.

    Raises:
        ConfigError: an unknown key, a value of the wrong type, or an error from the class itself.
    """
    hints = get_type_hints(cls)
    known = [field for field in dataclasses.fields(cls) if field.init]  # type: ignore[arg-type]
    names = [field.name for field in known]
    arguments = {}
    for key, value in values.items():
        if key not in names:
            raise ConfigError(f"{source}: unknown key {key!r} in {cls.__name__}; {suggest(str(key), sorted(names))}")
        arguments[key] = _converted(hints[key], value, f"{source}: {key}")
    for field in known:
        missing = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if missing and field.name not in arguments:
            raise ConfigError(f"{source}: {field.name} is missing")
    try:
        with blame(source, ConfigError):
            return cls(**arguments)
    except UserError as error:
        told = str(error).startswith(source)
        raise ConfigError(str(error) if told else f"{source}: {error}") from error


def convert(cls: Callable[..., Any], values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Convert values to the field types of a dataclass; values of other classes are returned unchanged.

    Raises:
        ConfigError: a value has the wrong type.
    """
    if not dataclasses.is_dataclass(cls) or not values:
        return dict(values)
    hints = get_type_hints(cls)
    return {key: _converted(hints[key], value, f"{source}: {key}") for key, value in values.items()}


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


#: Names of YAML types, for messages.
_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null"}


class _Unfit(Exception):
    """A value does not have the type; carries no message."""


def _converted(kind: Any, value: Any, where: str) -> Any:
    """`value` converted to the annotated type.

    Raises:
        ConfigError: it has another type; `where` names file and key.
    """
    options = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    _check_choice(options, value, where)
    for option in sorted(options, key=lambda one: type(value) is not one):
        try:
            return _as_type(option, value, where)
        except _Unfit:
            continue
    expected = " or ".join(dict.fromkeys(map(_type_name, options)))
    shown = "nothing (null)" if value is None else repr(value)
    raise ConfigError(f"{where}: expected {expected}, got {shown if len(shown) <= 80 else shown[:80] + ' ...'}")


def _check_choice(options: tuple[Any, ...], value: Any, where: str) -> None:
    """Check that text given for an Enum field is one of the Enum's values."""
    for option in options:
        if isinstance(option, type) and issubclass(option, Enum) and isinstance(value, str):
            choices = [str(each.value) for each in option]
            if value not in choices:
                raise ConfigError(f"{where}: unknown value {value!r}; {suggest(value, choices)}")


def _as_type(kind: Any, value: Any, where: str) -> Any:
    origin, inner = get_origin(kind) or kind, get_args(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
        return build(kind, value, where)  # type: ignore[arg-type]
    if origin is Literal and value in inner:
        return value
    if kind in (bool, str, type(None)) and type(value) is kind:
        return value
    if kind in (int, float):
        return _number(kind, value)
    if isinstance(kind, type) and issubclass(kind, Enum) and isinstance(value, str):
        return value  # the class itself checks the value and lists the choices
    if origin is dict and isinstance(value, Mapping):
        key, item = inner or (Any, Any)
        return {_converted(key, k, f"{where}: key"): _converted(item, v, f"{where}.{k}") for k, v in value.items()}
    if origin in (tuple, list) and isinstance(value, (list, tuple)):
        item = inner[0] if inner else Any
        return origin(_converted(item, each, f"{where}[{place}]") for place, each in enumerate(value))
    raise _Unfit


def _number(kind: type, value: Any) -> int | float:
    """Accepts whole numbers written like 1e3, and numbers that YAML reads as text."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise _Unfit from None
    try:
        usable = not isinstance(value, bool) and isinstance(value, (int, float)) and math.isfinite(value)
    except OverflowError:  # a whole number larger than any float
        usable = False
    if not usable or (kind is int and value != int(value)):
        raise _Unfit
    return int(value) if kind is int else value


def _type_name(kind: Any) -> str:
    origin, inner = get_origin(kind) or kind, get_args(kind)
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if origin in (tuple, list):
        return "a list"
    if origin is dict or dataclasses.is_dataclass(kind):
        return "a mapping of keys to values"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "one of " + ", ".join(str(each.value) for each in kind)
    return _NAMES.get(kind, str(kind))
