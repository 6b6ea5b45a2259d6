"""Pseudo-random numbers without a generator: the same number always gives the same one, on every device."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def mix(number: Tensor) -> Tensor:
    """Hash whole numbers to all of int64 (the finaliser of SplitMix64; shifts fill with zeros, products wrap)."""
    number = number + _signed(0x9E3779B97F4A7C15)
    number = (number ^ _shift(number, 30)) * _signed(0xBF58476D1CE4E5B9)
    number = (number ^ _shift(number, 27)) * _signed(0x94D049BB133111EB)
    return number ^ _shift(number, 31)


def _shift(number: Tensor, by: int) -> Tensor:
    return (number >> by) & ((1 << (64 - by)) - 1)


def _signed(constant: int) -> int:
    return constant - (1 << 64) if constant >> 63 else constant
