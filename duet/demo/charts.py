"""Small charts of the page, as SVG and HTML."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from duet.demo.costs import ALL
from duet.report.canvas import PALETTE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from duet.demo.costs import Cost

#: Size of the chart in its own units; margins for the axis labels.
WIDTH, HEIGHT, LEFT, BELOW, ABOVE, RIGHT = 460, 200, 44, 34, 12, 10
GREY = "var(--body-text-color-subdued)"


def colour(number: int) -> str:
    """Colour of an entry of the comparison; the first, with all tokens, is grey."""
    if number == 0:
        return GREY
    red, green, blue = (int(255 * channel + 0.5) for channel in PALETTE[(number - 1) % len(PALETTE)])
    return f"rgb({red},{green},{blue})"


def share_bar(number: int, value: float, whole: float, text: str) -> str:
    """A number with a bar for its share of the number with all tokens."""
    share = value / whole if whole else 0.0
    percent = "" if number == 0 else f" <small>{100 * share:.0f} %</small>"
    return (
        f'<div class="amount">{escape(text)}{percent}</div><div class="track">'
        f'<div class="bar" style="width:{100 * min(share, 1):.1f}%;background:{colour(number)}"></div></div>'
    )


def steps_chart(costs: Sequence[Cost]) -> str:
    """Visual tokens that enter each layer of the language model, a line per method."""
    drawn = [(number, cost) for number, cost in enumerate(costs) if cost.layers]
    depth = max((len(cost.layers) for _, cost in drawn), default=1)
    most = max((max(cost.layers) for _, cost in drawn), default=1)

    def x(layer: float) -> float:
        return LEFT + layer * (WIDTH - LEFT - RIGHT) / depth

    def y(tokens: float) -> float:
        return ABOVE + (1 - tokens / most) * (HEIGHT - ABOVE - BELOW)

    lines = "".join(_line(number, cost, x, y) for number, cost in drawn)
    ticks = "".join(
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(at):.1f}" y2="{y(at):.1f}" class="grid"/>'
        f'<text x="{LEFT - 6}" y="{y(at) + 4:.1f}" text-anchor="end">{at:g}</text>'
        for at in (0, most / 2, most)
    )
    every = max(1, depth // 8)
    layers = "".join(
        f'<text x="{x(number - 0.5):.1f}" y="{HEIGHT - BELOW + 16}" text-anchor="middle">{number}</text>'
        for number in range(every, depth + 1, every)
    )
    names = ", ".join("all tokens" if cost.method == ALL else cost.method for _, cost in drawn)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" class="steps" role="img" '
        f'aria-label="{escape(f"visual tokens entering each layer: {names}")}">{ticks}{layers}{lines}'
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 3}" text-anchor="middle" class="axis">'
        "layer of the language model</text></svg>"
    )


def _line(number: int, cost: Cost, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    """A step line, constant within each layer."""
    points = [f"M{x(0):.1f} {y(cost.layers[0]):.1f}"]
    for layer, tokens in enumerate(cost.layers):
        points.append(f"V{y(tokens):.1f}H{x(layer + 1):.1f}")
    return f'<path d="{"".join(points)}" style="stroke:{colour(number)}" class="line"/>'
