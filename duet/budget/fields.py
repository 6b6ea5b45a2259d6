"""Checks of the fields of a budget: each raises `UserError` with the field, its value and what fits."""

from __future__ import annotations

from itertools import pairwise

from duet.errors import UserError


def is_count(value: object) -> bool:
    """Whether it is a whole number, not a truth value."""
    return isinstance(value, int) and not isinstance(value, bool)


def listed(name: str, value: object) -> tuple:
    """A list or tuple as a tuple."""
    if not isinstance(value, (list, tuple)):
        raise UserError(f"{name} is {value!r}; give a list")
    return tuple(value)


def check_share(name: str, value: object) -> None:
    """A number in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise UserError(f"{name} is {value!r}; give a number in [0, 1)")


def check_amount(name: str, value: int | float, least: int) -> None:
    """A count of at least `least`, or a share of the tokens."""
    if is_count(value):
        if value < least:
            raise UserError(f"{name} is {value}; it must be at least {least}")
    elif not isinstance(value, float) or not 0 <= value <= 1 or (least and value == 0):
        bracket = "(" if least else "["
        raise UserError(f"{name} is {value!r}; give a count (int) or a share of the tokens (float in {bracket}0, 1])")


def resolve_amount(amount: int | float, tokens: int) -> int:
    """A count as it is, a share truncated to a count; a share above 0 keeps at least one token."""
    if isinstance(amount, int):
        return amount
    return max(1, int(amount * tokens)) if amount else 0


def check_layers(layers: tuple[int | float, ...]) -> None:
    """Ascending counts of layers, or ascending shares of the depth."""
    counts = [is_count(layer) for layer in layers]
    if any(counts) and not all(counts):
        raise UserError(f"layers {layers}: give all as counts (int) or all as shares of the depth (float)")
    for layer in layers:
        if all(counts) and layer < 1:
            raise UserError(f"layer {layer}: stage 2 acts after layer 1 at the earliest")
        if not all(counts) and not (isinstance(layer, float) and 0 < layer < 1):
            raise UserError(f"layer {layer!r}: give a count (int) or a share of the depth (float in (0, 1))")
    if any(later <= earlier for earlier, later in pairwise(layers)):
        raise UserError(f"layers {layers} must ascend")


def check_ratios(ratios: tuple[float, ...]) -> None:
    """Shares in [0, 1] that do not rise."""
    for ratio in ratios:
        if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0 <= ratio <= 1:
            raise UserError(f"ratio {ratio!r} is not a number in [0, 1]")
    if any(later > earlier for earlier, later in pairwise(ratios)):
        raise UserError(f"ratios {ratios} must not rise: dropped tokens do not come back")


def check_keep(keep: tuple[int, ...]) -> None:
    """Counts that do not rise."""
    for count in keep:
        if not is_count(count) or count < 0:
            raise UserError(f"keep {count!r} is not a count of tokens (0, 1, 2, ...); for shares give `ratios`")
    if any(later > earlier for earlier, later in pairwise(keep)):
        raise UserError(f"keep {keep} must not rise: dropped tokens do not come back")


def check_entry(entry: int | float) -> None:
    """A count of layers, or a share of the depth."""
    if not _is_place(entry):
        raise UserError(f"entry is {entry!r}; give a count of layers (int) or a share of the depth (float in [0, 1))")


def check_frozen(frozen: int | float | tuple[int, ...] | None) -> None:
    """None, the first frozen layer as a count or a share of the depth, or ascending layers."""
    if isinstance(frozen, tuple):
        if not frozen or not all(is_count(layer) and layer >= 0 for layer in frozen):
            raise UserError(f"frozen is {frozen}; give layers counted from 0, at least one, or leave it out")
        if any(later <= earlier for earlier, later in pairwise(frozen)):
            raise UserError(f"frozen layers {frozen} must ascend")
    elif frozen is not None and not _is_place(frozen):
        raise UserError(
            f"frozen is {frozen!r}; give the first frozen layer (int), a share of the depth (float in [0, 1)), "
            "or a list of layers"
        )


def check_away(away: object) -> None:
    """Ascending layers, counted from 0."""
    if not isinstance(away, (list, tuple)) or not all(is_count(layer) and layer >= 0 for layer in away):
        raise UserError(f"away is {away!r}; give a list of layers, counted from 0")
    if any(later <= earlier for earlier, later in pairwise(away)):
        raise UserError(f"away layers {away} must ascend")


def spans_of(layers: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Runs of neighbours among ascending layers, each `(first, after the last)`: 2, 3, 6 -> (2, 4), (6, 7)."""
    starts = [layer for layer in layers if layer - 1 not in layers]
    ends = [layer + 1 for layer in layers if layer + 1 not in layers]
    return tuple(zip(starts, ends, strict=True))


def check_returns(absences: tuple[tuple[int, int], ...], layers: tuple[int, ...], method: str) -> None:
    """No drop where tokens come back, for a method that ranks in the layer before it.

    Args:
        absences: runs of layers without visual tokens, each `(first, after the last)`.
        layers: drops.
        method: its name.
    """
    for span in absences:
        if span[1] in layers:
            raise UserError(
                f"method {method} ranks visual tokens in the layer before a drop, and before the one after layer "
                f"{span[1]} they are away ({called(span)}, counted from 0); drop one layer later"
            )


def called(span: tuple[int, int]) -> str:
    """A run of layers `(first, after the last)` in words."""
    start, end = span
    return f"layer {start}" if end == start + 1 else f"layers {start} to {end - 1}"


def _is_place(value: object) -> bool:
    return (is_count(value) and value >= 0) or (isinstance(value, float) and 0 <= value < 1)  # type: ignore[operator]
