"""Pictures with what is left of them, as SVG: painted patches as one image, outlines as lines that stay sharp."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from PIL import Image

from duet.report.canvas import borders, cluster_colours, paint
from duet.report.kept import kept_patches
from duet.report.views import make_views

if TYPE_CHECKING:
    from duet.inference import Answer, Question
    from duet.report.canvas import Canvas
    from duet.report.kept import Kept
    from duet.report.views import Spot, View

#: Pixels along the longer side of an image that is sent.
SIDE = 520
HEAT = colormaps["cividis"]


@dataclass(frozen=True)
class Panel:
    """A picture with a title.

    Attributes:
        title, about: two lines over it.
        svg: the picture.
    """

    title: str
    about: str
    svg: str


def panels_of(question: Question, answer: Answer) -> list[list[Panel]]:
    """A row per picture, set of tiles and video: what the model saw, what each reduction left, the scores behind it.

    Args:
        question: that was asked.
        answer: of a method, with its trace.
    """
    assert answer.trace is not None
    kept = kept_patches(answer.trace, [region.patches for region in question.regions])
    return [_row(view) for view in make_views(question.media, question.regions, kept)]


def _row(view: View) -> list[Panel]:
    panels = [Panel(view.title, view.about, _svg(view, [spot.canvas.seen for spot in view.spots]))]
    for number, step in enumerate(view.spots[0].steps):
        panels.append(_kept(view, number))
        if step.scores is not None:
            panels.append(_scores(view, number))
    return panels


def _kept(view: View, number: int) -> Panel:
    colours = [cluster_colours(spot.steps[0].cluster, spot.canvas.grid) for spot in view.spots]
    steps = [spot.steps[number] for spot in view.spots]
    triples = list(zip(view.spots, steps, colours, strict=True))
    painted = [paint(spot.canvas, step.clear, step.cluster, colour) for spot, step, colour in triples]
    lines = "".join(_outline(spot, step, colour) for spot, step, colour in triples)
    before, left = (sum(getattr(step, name) for step in steps) for name in ("before", "left"))
    place, what = (f"after layer {steps[0].boundary}", "") if steps[0].boundary else ("stage 1", " patches")
    return Panel(f"{place}: {before}{what} → {left} tokens", contents(steps), _svg(view, painted, lines))


def contents(steps: Sequence[Kept]) -> str:
    """What the tokens that are left stand for."""
    counts = (
        (sum(step.cls for step in steps), "CLS"),
        (sum(int(step.clear.sum()) for step in steps), "patches"),
        (sum(len(step.anchors) for step in steps), "merged"),
    )
    parts = [what if (count, what) == (1, "CLS") else f"{count} {what}" for count, what in counts if count]
    return " + ".join(parts) if parts else "none of them goes on"


def _scores(view: View, number: int) -> Panel:
    scores = [spot.steps[number].scores for spot in view.spots]
    known = np.concatenate([one[~np.isnan(one)] for one in scores if one is not None])
    low, high = (float(known.min()), float(np.quantile(known, 0.98))) if len(known) else (0.0, 1.0)
    painted = [_heat(spot.canvas, one, low, high) for spot, one in zip(view.spots, scores, strict=True)]
    title = f"scores after layer {view.spots[0].steps[number].boundary}"
    return Panel(title, f"{low:.2g} (dark) to {high:.2g} (bright)", _svg(view, painted))


def _heat(canvas: Canvas, values: np.ndarray | None, low: float, high: float) -> np.ndarray:
    """Scores over the picture; patches without one in faint grey."""
    assert values is not None
    shares = (np.nan_to_num(values) - low) / max(high - low, 1e-12)
    colours = HEAT(shares.clip(0, 1))[:, :3]
    nothing = np.zeros(len(values), dtype=bool)
    faint = paint(canvas, nothing, np.full(len(values), -1), np.zeros((0, 3)))
    pixels = 0.85 * canvas.over(colours) + 0.15 * canvas.seen
    return np.where(canvas.over(~np.isnan(values))[..., None], pixels, faint)


def _svg(view: View, painted: Sequence[np.ndarray], lines: str = "") -> str:
    left, top, right, bottom = view.frame
    images = "".join(_image(spot, pixels) for spot, pixels in zip(view.spots, painted, strict=True))
    box = f"{left:g} {top:g} {right - left:g} {bottom - top:g}"
    return f'<svg viewBox="{box}" role="img" aria-label="{escape(view.title)}">{images}{lines}</svg>'


def _image(spot: Spot, pixels: np.ndarray) -> str:
    picture = Image.fromarray((255 * pixels.clip(0, 1) + 0.5).astype(np.uint8))
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    content = io.BytesIO()
    picture.save(content, "WEBP", quality=88)
    data = base64.b64encode(content.getvalue()).decode()
    (left, top, right, bottom), (x, y) = spot.canvas.box, spot.shift
    place = f'x="{left + x:g}" y="{top + y:g}" width="{right - left:g}" height="{bottom - top:g}"'
    return f'<image {place} preserveAspectRatio="none" href="data:image/webp;base64,{data}"/>'


def _outline(spot: Spot, step: Kept, colours: np.ndarray) -> str:
    """Lines around clear patches and clusters, and a dot on the patch that stands for a cluster."""
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
