"""What the values of options are read as: numbers, counts, words. Each says what is wrong with a value in one line."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from collections.abc import Callable
from math import isfinite
from typing import Any

#: No count is near it, and what is larger overflows in tensors.
LARGEST = 2**31


def amount(text: str) -> int | float:
    """A count (`170`) or a share (`0.3`)."""
    try:
        number = float(text) if any(mark in text for mark in ".eE") else int(text)
    except ValueError:
        raise ArgumentTypeError(f"{text[:80]!r} is not a number") from None
    if abs(number) > LARGEST or not isfinite(number):
        raise ArgumentTypeError(f"{text[:80]!r} is too large a number")
    return number


def amounts(text: str) -> list[int | float]:
    """Comma-separated numbers."""
    return [amount(part) for part in text.split(",")]


def layer_or_layers(text: str) -> int | float | list[int | float]:
    """One number, or comma-separated ones: `16`, `0.75`, `0,2,3`; `3,` is a list of one."""
    parts = [amount(part) for part in text.split(",") if part.strip()]
    if not parts:
        raise ArgumentTypeError(f"{text!r} names no layer")
    return parts if "," in text else parts[0]


def method_names(text: str) -> list[str]:
    """Comma-separated methods; commas inside brackets belong to a method's options (`scope[alpha=2,score=x]`)."""
    return [part.strip() for part in re.split(r",(?![^\[]*\])", text)]


def whole(text: str) -> int:
    """A whole number, at least 0."""
    number = amount(text)
    if not isinstance(number, int) or number < 0:
        raise ArgumentTypeError(f"{text} is not a whole number of at least 0")
    return number


def positive(text: str) -> int:
    """A whole number, at least 1."""
    number = amount(text)
    if not isinstance(number, int) or number < 1:
        raise ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return number


def above_zero(text: str) -> int | float:
    """A number above 0."""
    number = amount(text)
    if number <= 0:
        raise ArgumentTypeError(f"{text} is not a number above 0")
    return number


def at_least(least: float) -> Callable[[str], float]:
    """A reader of finite numbers not below `least`."""

    def read(text: str) -> float:
        number = amount(text)
        if number < least:
            raise ArgumentTypeError(f"{text} is out of range: give {least:g} or more")
        return float(number)

    return read


def share(text: str) -> int | float:
    """A share from 0 to less than 1."""
    number = amount(text)
    if not 0 <= number < 1:
        raise ArgumentTypeError(f"{text} is not a share from 0 to less than 1")
    return number


def no_number(text: str) -> str:
    """The name of a budget."""
    if text.replace(".", "", 1).isdecimal():
        raise ArgumentTypeError(f"{text} is no name; an average of tokens is --average {text}")
    return text


def option(text: str) -> tuple[str, Any]:
    """`alpha=2.0` -> name and value; numbers and booleans are converted."""
    from duet.config import parse_value

    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise ArgumentTypeError(f"{text!r}: write NAME=VALUE")
    found = parse_value(value, f"--option {name}")
    if found is None:
        raise ArgumentTypeError(f"{text!r} has no value; leave the option out for the default")
    return name, found
