"""Pictures with their remaining patches, as SVG: one image for the patches, vector lines for outlines."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from duet.report.attention_sheet import QUANTILE, heat
from duet.report.canvas import borders, cluster_colours, dim, paint
from duet.report.kept import kept_patches
from duet.report.views import make_views

if TYPE_CHECKING:
    from duet.inference import Answer, Question
    from duet.report.attention import AttentionMap
    from duet.report.kept import Kept
    from duet.report.views import Spot, View

#: Pixels along the longer side of a sent image.
SIDE = 520


@dataclass(frozen=True)
class Panel:
    """A picture with a title.

    Attributes:
        title, about: two lines above it.
        svg: the picture.
        wide: whether it shows several units side by side.
    """

    title: str
    about: str
    svg: str
    wide: bool = False


def kept_panels(question: Question, answer: Answer) -> list[list[Panel]]:
    """A row per picture, set of tiles and video: what the model saw, then each reduction's scores and what it left.

    Args:
        question: the encoded one.
        answer: of a method, with its trace.
    """
    assert answer.trace is not None
    kept = kept_patches(answer.trace, [region.patches for region in question.regions])
    return [_row(view) for view in make_views(question.media, question.regions, kept)]


def word_panels(question: Question, maps: Sequence[AttentionMap]) -> list[list[Panel]]:
    """A row per picture, set of tiles and video: where each word looks."""
    units = [[one.units[number] for one in maps] for number in range(len(question.regions))]
    views = make_views(question.media, question.regions, units)
    return [[_word(view, number, one) for number, one in enumerate(maps)] for view in views]


def _word(view: View, number: int, one: AttentionMap) -> Panel:
    values = [spot.steps[number] for spot in view.spots]
    known = np.concatenate([each[~np.isnan(each)] for each in values])
    known = known if len(known) else np.zeros(1)
    most = float(np.quantile(known, QUANTILE))
    painted = [heat(spot.canvas, each, most) for spot, each in zip(view.spots, values, strict=True)]
    return _panel(view, one.looker.label, f"{100 * known.sum():.2g} %", painted)


def _row(view: View) -> list[Panel]:
    panels = [_panel(view, "as the model sees it", view.about, [spot.canvas.seen for spot in view.spots])]
    for number, step in enumerate(view.spots[0].steps):
        # where nothing is left nothing was chosen
        if step.scores is not None and any(spot.steps[number].left for spot in view.spots):
            panels.append(_scores(view, number))
        panels.append(_kept(view, number))
    return panels


def _kept(view: View, number: int) -> Panel:
    colours = [cluster_colours(spot.steps[0].cluster, spot.canvas.grid) for spot in view.spots]
    steps = [spot.steps[number] for spot in view.spots]
    triples = list(zip(view.spots, steps, colours, strict=True))
    painted = [paint(spot.canvas, step.clear, step.cluster, colour) for spot, step, colour in triples]
    lines = "".join(_outline(spot, step, colour) for spot, step, colour in triples)
    before, left = (sum(getattr(step, name) for step in steps) for name in ("before", "left"))
    place, what = (f"after layer {steps[0].boundary}", "") if steps[0].boundary else ("stage 1", " patches")
    return _panel(view, f"{place}: {before}{what} → {left} tokens", contents(steps), painted, lines)


def contents(steps: Sequence[Kept]) -> str:
    """The kinds of the remaining tokens."""
    counts = (
        (sum(step.cls for step in steps), "CLS"),
        (sum(int(step.clear.sum()) for step in steps), "patches"),
        (sum(len(step.anchors) for step in steps), "merged"),
    )
    parts = [what if (count, what) == (1, "CLS") else f"{count} {what}" for count, what in counts if count]
    return " + ".join(parts) if parts else "none is left"


def _scores(view: View, number: int) -> Panel:
    scores = [np.asarray(spot.steps[number].scores) for spot in view.spots]
    known = np.concatenate([one[~np.isnan(one)] for one in scores])
    low, high = (float(known.min()), float(np.quantile(known, QUANTILE))) if len(known) else (0.0, 1.0)
    painted = [heat(spot.canvas, one - low, high - low) for spot, one in zip(view.spots, scores, strict=True)]
    title = f"scores after layer {view.spots[0].steps[number].boundary}"
    return _panel(view, title, f"{low:.2g} (white) to {high:.2g} (dark red)", painted)


def _panel(view: View, title: str, about: str, painted: Sequence[np.ndarray], lines: str = "") -> Panel:
    left, top, right, bottom = view.frame
    around = "".join(map(_around, view.spots))
    images = "".join(_image(pixels, spot.canvas.box, spot) for spot, pixels in zip(view.spots, painted, strict=True))
    box = f"{left:g} {top:g} {right - left:g} {bottom - top:g}"
    name = escape(f"{view.title}: {title}")
    svg = f'<svg viewBox="{box}" role="img" aria-label="{name}">{around}{images}{lines}</svg>'
    return Panel(title, about, svg, len(view.spots) > 1)


def _around(spot: Spot) -> str:
    """The original, faint, where the model did not see all of it."""
    picture, (left, top, right, bottom) = spot.canvas.picture, spot.canvas.box
    width, height = picture.size
    if left <= 0.5 and top <= 0.5 and right >= width - 0.5 and bottom >= height - 0.5:
        return ""
    small = picture.copy()
    small.thumbnail((SIDE, SIDE))
    return _image(dim(np.asarray(small, dtype=float) / 255), (0, 0, width, height), spot)


def _image(pixels: np.ndarray, box: tuple[float, float, float, float], spot: Spot) -> str:
    picture = Image.fromarray((255 * pixels.clip(0, 1) + 0.5).astype(np.uint8))
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    content = io.BytesIO()
    picture.save(content, "WEBP", quality=88)
    data = base64.b64encode(content.getvalue()).decode()
    (left, top, right, bottom), (x, y) = box, spot.shift
    place = f'x="{left + x:g}" y="{top + y:g}" width="{right - left:g}" height="{bottom - top:g}"'
    return f'<image {place} preserveAspectRatio="none" href="data:image/webp;base64,{data}"/>'


def _outline(spot: Spot, step: Kept, colours: np.ndarray) -> str:
    """Lines around clear patches and clusters, and a dot on the anchor patch of a cluster."""
    canvas, (_, columns) = spot.canvas, spot.canvas.grid
    scale, corner = np.array(canvas.patch), np.array(canvas.box[:2]) + spot.shift
    around, _ = borders(np.where(step.clear, 0, -1), canvas.grid, inset=0)
    found = [_path(around * scale + corner, "clear")]
    segments, owners = borders(step.cluster, canvas.grid)
    for owner in np.unique(owners):
        red, green, blue = (int(255 * channel) for channel in colours[owner])
        found.append(_path(segments[owners == owner] * scale + corner, "cluster", f"rgb({red},{green},{blue})"))
    at = np.stack([step.anchors % columns, step.anchors // columns], axis=1) + 0.5
    radius = 0.13 * scale.min()
    dots = (f'<circle cx="{cx:.2f}" cy="{cy:.2f}" r="{radius:.2f}"/>' for cx, cy in at * scale + corner)
    return "".join(found) + "".join(dots)


def _path(segments: np.ndarray, kind: str, stroke: str = "") -> str:
    if not len(segments):
        return ""
    drawn = "".join(f"M{a:.2f} {b:.2f}L{c:.2f} {d:.2f}" for (a, b), (c, d) in segments)
    style = f' style="stroke:{stroke}"' if stroke else ""
    return f'<path d="{drawn}" class="{kind}"{style}/>'
