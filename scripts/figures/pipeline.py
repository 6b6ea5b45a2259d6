"""Draws what happens to the visual tokens of one picture, from file to answer: docs/results/pipeline.png.

Nothing in it is made up: a small model is run, and what is drawn is what its two stages kept.

    python -m playground.mini.generate eval --output playground/data/mini
    python scripts/figures/pipeline.py playground/data/mini/eval/gqa/data/images/n00000027.png \
        "What color is the triangle?" -o docs/results/pipeline.png
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle

import duet
from duet.cli.compression import DEFAULT_SHARE
from duet.data.pictures import open_picture
from duet.inference import answer, encode
from duet.report.attention_sheet import QUANTILE, heat
from duet.report.canvas import Canvas, borders, cluster_colours, make_canvas, paint
from duet.report.kept import Kept, kept_patches
from duet.report.panels import EDGE, FAINT
from duet.shipped import default_model
from duet.text.salient import PromptWord, prompt_words

METHOD = "duet_c_s"
#: Inches.
WIDTH, HEIGHT = 14.45, 5.0
SIDE, THUMB, CELL, PITCH, DROP = 1.95, 1.22, 0.088, 0.37, 1.52
#: The line on which everything flows; feet of the token columns; where the layers begin.
FLOW, LAYERS, FIRST = 2.7, 0.98, 7.3
TEXT, SALIENT, FRAME, CLS = "#f7e7b5", "#f0b429", "#8a94a6", "#5d6472"
BOX, MARK = "#e9edf4", "#31507d"


@dataclass(frozen=True)
class Run:
    """What a run of the question kept.

    Attributes:
        canvas: the picture.
        steps: its reductions.
        colours: `[K, 3]` of the visual tokens that enter the language model.
        alive: boundary -> which of them are left, `[K]` bool.
        salient: `[T]` bool, of the text tokens after the picture.
        words: of the question, and whether each is salient.
        layers: of the language model.
        text: the answer.
    """

    canvas: Canvas
    steps: list[Kept]
    colours: np.ndarray
    alive: dict[int, np.ndarray]
    salient: np.ndarray
    words: list[tuple[str, bool]]
    layers: int
    text: str


def main() -> None:
    """Run the model, draw, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("question")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    draw(ask(args.picture, args.question)).savefig(args.output, dpi=140)


def ask(picture: Path, question: str) -> Run:
    """Answer with both stages, and read from the trace what they kept."""
    model, processor = duet.load(str(default_model()))
    asked = encode(model, processor, [open_picture(picture)], question)
    (region,) = asked.regions
    duet.attach(model, METHOD, DEFAULT_SHARE * region.patches, tokenizer=processor.tokenizer)
    given = answer(model, processor, asked, traced=True)
    trace = given.trace
    assert trace is not None
    (steps,) = kept_patches(trace, [region.patches])
    canvas = make_canvas(open_picture(picture), region)
    alive = {0: np.ones(trace.entered[0], dtype=bool)}
    for stage in trace.stages:
        alive[stage.boundary] = np.isin(np.arange(trace.entered[0]), stage.kept[0].numpy())
    held = torch.as_tensor(model.config.image_token_id) == given.input_ids
    after = torch.arange(len(given.input_ids)) > held.nonzero().max()
    voters = torch.zeros(len(given.input_ids), dtype=torch.bool)
    voters[trace.stages[0].voters[0]] = True
    return Run(
        canvas=canvas,
        steps=steps,
        colours=token_colours(canvas, steps[0], trace.reductions[0][0].kept[0].numpy()),
        alive=alive,
        salient=voters[after].numpy(),
        words=[(word.text, votes(word, voters)) for word in prompt_words(processor.tokenizer, given.input_ids, after)],
        layers=model.config.get_text_config().num_hidden_layers,
        text=given.text,
    )


def votes(word: PromptWord, voters: torch.Tensor) -> bool:
    """Whether any token of a word votes."""
    return bool(voters[list(word.columns)].any())


def token_colours(canvas: Canvas, step: Kept, kept: np.ndarray) -> np.ndarray:
    """The mean colour of a patch, the tint of a merged token, grey for CLS: `[K, 3]`."""
    rows, columns = canvas.grid
    mean = canvas.seen.reshape(rows, canvas.cell, columns, canvas.cell, 3).mean((1, 3)).reshape(-1, 3)
    tints = cluster_colours(step.cluster, canvas.grid)
    found = np.where((kept >= 0)[:, None], mean[kept], np.array([int(CLS[i : i + 2], 16) / 255 for i in (1, 3, 5)]))
    found[len(found) - len(step.anchors) :] = tints
    return found


def draw(run: Run) -> Figure:
    """The figure."""
    figure = Figure(figsize=(WIDTH, HEIGHT), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    _show_towers(axes, run)
    _show_model(axes, run)
    for step in run.steps[1:]:
        _show_drop(axes, run, step)
    axes.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
    _show_question(axes, run)
    _show_legend(axes, run)
    return figure


def _show_towers(axes: Any, run: Run) -> None:
    """Picture, vision encoder, stage 1, projector."""
    foot = FLOW - SIDE / 2
    patches = run.canvas.grid[0] * run.canvas.grid[1]
    _panel(axes, run.canvas.seen, 0.3, foot, SIDE)
    _grid(axes, run, 0.3, foot, SIDE)
    _title(axes, 0.3, foot + SIDE, "picture", f"{patches} patches")
    _arrow(axes, 2.33, 2.55)
    corners = [(2.63, FLOW - 0.66), (2.63, FLOW + 0.66), (3.38, FLOW + 0.42), (3.38, FLOW - 0.42)]
    axes.add_patch(Polygon(corners, facecolor=BOX, edgecolor=FRAME, linewidth=0.9))
    axes.text(3.0, FLOW, "vision\nencoder", ha="center", va="center", fontsize=9.5)
    _arrow(axes, 3.45, 3.67)
    first = run.steps[0]
    colours = cluster_colours(first.cluster, run.canvas.grid)
    _panel(axes, paint(run.canvas, first.clear, first.cluster, colours), 3.75, foot, SIDE)
    _outline(axes, run, first, 3.75, foot, SIDE)
    _title(axes, 3.75, foot + SIDE, "merge", f"{patches} patches → {first.left} tokens", "A")
    parts = [*(["CLS"] if first.cls else []), f"{int(first.clear.sum())} dominant patches"]
    axes.text(3.75, foot - 0.09, " + ".join(parts), fontsize=8.5, va="top", color=FAINT)
    axes.text(3.75, foot - 0.27, f"+ {len(first.anchors)} local clusters", fontsize=8.5, va="top", color=FAINT)
    _arrow(axes, 5.78, 6.0)
    _box(axes, 6.12, FLOW - 0.6, 0.3, 1.2, BOX)
    axes.text(6.27, FLOW, "projector", ha="center", va="center", rotation=90, fontsize=9.5)
    _arrow(axes, 6.53, 6.75)


def _show_model(axes: Any, run: Run) -> None:
    """The layers of the language model, each with the tokens that enter it."""
    left, right = FIRST - 0.42, _x(run, run.layers) - 0.08
    _box(axes, left, LAYERS - 0.36, right - left, HEIGHT - 0.1 - LAYERS + 0.36, "white")
    axes.text(left + 0.08, HEIGHT - 0.39, "language model", fontsize=11, weight="bold")
    axes.text(left + 0.08, HEIGHT - 0.59, "tokens that enter each layer", fontsize=8.5, color=FAINT)
    alive = run.alive[0]
    for layer in range(run.layers):
        x = _x(run, layer)
        alive = run.alive.get(layer, alive)
        _show_tokens(axes, run, x, alive)
        axes.text(x + CELL, LAYERS - 0.09, str(layer + 1), ha="center", va="top", fontsize=8.5, color=FAINT)
    axes.text(left + 0.02, LAYERS - 0.09, "layer", va="top", fontsize=8.5, color=FAINT)
    _arrow(axes, right + 0.12, right + 0.34)
    axes.text(right + 0.42, FLOW, run.text, fontsize=12, weight="bold", va="center")
    axes.text(right + 0.42, FLOW + 0.27, "answer", fontsize=8.5, va="center", color=FAINT)


def _x(run: Run, layer: int) -> float:
    """Left edge of the tokens of a layer; at every drop there is room for its pictures."""
    return FIRST + layer * PITCH + sum(DROP for boundary in run.alive if 0 < boundary <= layer)


def _show_tokens(axes: Any, run: Run, x: float, alive: np.ndarray) -> None:
    """Text at the foot, visual tokens above it, two side by side."""
    text = [SALIENT if salient else TEXT for salient in run.salient]
    cells = [*text, *([None] * (len(text) % 2)), *run.colours[alive]]
    for number, colour in enumerate(cells):
        if colour is not None:
            place = (x + CELL * (number % 2), LAYERS + CELL * (number // 2))
            axes.add_patch(Rectangle(place, CELL, CELL, facecolor=colour, edgecolor="white", linewidth=0.7))


def _show_drop(axes: Any, run: Run, step: Kept) -> None:
    """Where the salient words look, and under it what is left."""
    x = _x(run, step.boundary) - DROP + 0.14
    upper, lower = 3.0, 1.06
    scores = np.asarray(step.scores)
    most = float(np.quantile(scores[~np.isnan(scores)], QUANTILE))
    _title(axes, x, upper + THUMB, "drop", f"{step.before} → {step.left} tokens", "B")
    _panel(axes, heat(run.canvas, scores, most), x, upper, THUMB)
    axes.text(x, upper - 0.07, "where salient words look", fontsize=7.5, va="top", color=FAINT)
    colours = cluster_colours(run.steps[0].cluster, run.canvas.grid)
    _panel(axes, paint(run.canvas, step.clear, step.cluster, colours), x, lower, THUMB)
    _outline(axes, run, step, x, lower, THUMB)
    what = "what is left of them" if step.left else "none is left"
    axes.text(x, lower - 0.07, what, fontsize=7.5, va="top", color=FAINT)
    middle = x + THUMB / 2
    _point(axes, (middle, upper - 0.24), (middle, lower + THUMB + 0.06))


def _show_question(axes: Any, run: Run) -> None:
    """The words under the model, the salient ones marked."""
    x, y, feet = FIRST - 0.34, 0.2, FIRST + CELL
    axes.text(x, y, "question", fontsize=8.5, color=FAINT, va="center")
    x += 0.66
    for number, (word, salient) in enumerate(run.words):
        x += 0.09 if number and word not in "?!.,:" else 0.0
        written = axes.text(x, y, word, fontsize=10.5, va="center", zorder=3)
        wide = written.get_window_extent().width / axes.figure.dpi
        mark = Rectangle((x - 0.025, y - 0.1), wide + 0.05, 0.21, facecolor=SALIENT if salient else TEXT, zorder=2)
        axes.add_patch(mark)
        x += wide
    _point(axes, (feet, y + 0.17), (feet, LAYERS - 0.36))


def _show_legend(axes: Any, run: Run) -> None:
    """What the colours of tokens mean."""
    first = run.steps[0]
    rows = [
        (
            [run.colours[1 + int(np.argmax(np.ptp(run.colours[1 : -len(first.anchors)], axis=1)))]],
            "a patch, in its colour",
        ),
        (list(run.colours[len(run.colours) - len(first.anchors) :][:3]), "merged patches"),
        ([SALIENT], "a word that votes"),
        ([TEXT], "other text"),
    ]
    x = 0.3
    for colours, label in rows:
        for colour in colours:
            axes.add_patch(Rectangle((x, 0.15), 0.11, 0.11, facecolor=colour, edgecolor="white", linewidth=0.5))
            x += 0.11
        written = axes.text(x + 0.06, 0.2, label, fontsize=8.5, va="center", color=FAINT)
        x += written.get_window_extent().width / axes.figure.dpi + 0.26


def _box(axes: Any, x: float, y: float, width: float, height: float, colour: str) -> None:
    style = "round,pad=0,rounding_size=0.07"
    box = FancyBboxPatch((x, y), width, height, boxstyle=style, facecolor=colour, edgecolor=FRAME, linewidth=1.0)
    axes.add_patch(box)


def _panel(axes: Any, pixels: np.ndarray, x: float, y: float, side: float) -> None:
    axes.imshow(np.clip(pixels, 0, 1), extent=(x, x + side, y, y + side), interpolation="antialiased", zorder=2)
    axes.add_patch(Rectangle((x, y), side, side, facecolor="none", edgecolor="0.5", linewidth=0.7, zorder=3))


def _grid(axes: Any, run: Run, x: float, y: float, side: float) -> None:
    rows, columns = run.canvas.grid
    for number in range(1, rows):
        axes.plot([x, x + side], [y + side * number / rows] * 2, color="white", linewidth=0.4, alpha=0.4, zorder=3)
    for number in range(1, columns):
        axes.plot([x + side * number / columns] * 2, [y, y + side], color="white", linewidth=0.4, alpha=0.4, zorder=3)


def _outline(axes: Any, run: Run, step: Kept, x: float, y: float, side: float) -> None:
    """Lines around what is kept, dots on the patches that stand for clusters."""
    rows, columns = run.canvas.grid
    scale = np.array([side / columns, -side / rows])
    corner = np.array([x, y + side])
    around, _ = borders(np.where(step.clear, 0, -1), run.canvas.grid, inset=0)
    for segment in around * scale + corner:
        axes.plot(*segment.T, color=EDGE, linewidth=0.6, zorder=4)
    at = np.stack([step.anchors % columns, step.anchors // columns], axis=1) + 0.5
    size = 5.5 * side
    axes.scatter(*(at * scale + corner).T, s=size, color="white", edgecolors="black", linewidths=0.5, zorder=5)


def _title(axes: Any, x: float, y: float, first: str, second: str, letter: str = "") -> None:
    if letter:
        axes.add_patch(Circle((x + 0.11, y + 0.33), 0.105, facecolor=MARK, edgecolor="none"))
        centre = {"ha": "center", "va": "center_baseline", "fontsize": 9, "weight": "bold"}
        axes.text(x + 0.11, y + 0.335, letter, color="white", **centre)
    axes.text(x + (0.29 if letter else 0), y + 0.27, first, fontsize=11, weight="bold")
    axes.text(x, y + 0.075, second, fontsize=8.5, color=FAINT)


def _arrow(axes: Any, start: float, end: float) -> None:
    _point(axes, (start, FLOW), (end, FLOW))


def _point(axes: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    style = {"arrowstyle": "-|>", "mutation_scale": 9, "color": EDGE, "linewidth": 1.1, "shrinkA": 0, "shrinkB": 0}
    axes.add_patch(FancyArrowPatch(start, end, **style))


if __name__ == "__main__":
    main()
