"""Region descriptions, for the step between captions and questions: captions of what a phrase describes.

"Describe the ring." -> "top left small red ring". The words are those of the dense captions; the question selects the
things to name. Every answer gives several attributes, so a row teaches far more about finding things by shape, color,
size and place than eight yes/no answers. LLaVA-1.5's mixture contains region descriptions (Visual Genome, RefCOCO) for
the same purpose.
"""

from __future__ import annotations

import numpy as np

from .conversations import Row, row
from .world import COLORS, PLACES, SHAPES, SIZES, Item, Scene

TURNS = 10
NOTHING = "nothing"


def region_row(name: str, image: str, scene: Scene, random: np.random.Generator) -> Row:
    """Ten different regions of one picture, some of them empty."""
    turns: dict[str, str] = {}
    while len(turns) < TURNS:
        phrase, found = _region(scene, random)
        turns[f"Describe the {phrase}."] = ", ".join(_described(item) for item in found) or NOTHING
    return row(name, image, list(turns.items()))


def _region(scene: Scene, random: np.random.Generator) -> tuple[str, list[Item]]:
    """A phrase and the things it describes, in raster order. Half of the phrases describe something in the picture."""
    item = scene.shapes[int(random.integers(len(scene.shapes)))]
    if random.random() < 0.5:
        shape, color, size = item.text, item.color, item.size
        place = scene.items[int(random.integers(len(scene.items)))].place
    else:
        shape, color, size = (str(random.choice(list(names))) for names in (SHAPES, COLORS, SIZES))
        place = int(random.integers(len(PLACES)))
    kind = str(random.choice(["shape", "color", "both", "place", "size"], p=[0.25, 0.25, 0.2, 0.2, 0.1]))
    if kind == "place":
        return PLACES[place], [thing for thing in scene.items if thing.place == place]
    wanted = {
        "shape": (shape, lambda thing: thing.text == shape),
        "color": (f"{color} object", lambda thing: thing.color == color),
        "both": (f"{color} {shape}", lambda thing: thing.color == color and thing.text == shape),
        "size": (f"{size} object", lambda thing: thing.size == size),
    }
    phrase, fits = wanted[kind]
    return phrase, [thing for thing in scene.shapes if fits(thing)]


def _described(item: Item) -> str:
    return f"{PLACES[item.place]} {item.phrase}"
