"""Questions about a scene with one certain answer each, like those of POPE, GQA, TextVQA and MME.

A maker takes (scene, random) and returns a `Question`, or None if the scene does not allow its question ("What color
is the ring?" needs exactly one ring). Yes/no makers draw the answer first, so both are equally frequent. Questions
with lettered options are in `choices.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .world import BACKGROUNDS, COLORS, PLACES, SHAPES, WORDS, Item, Scene


@dataclass(frozen=True)
class Question:
    """`kind` groups questions for reports; `opposite` has the other answer (the other half of an MME pair)."""

    kind: str
    text: str
    answer: str
    opposite: str = ""


Maker = Callable[[Scene, np.random.Generator], Question | None]


def pick(random: np.random.Generator, options: list) -> object:
    """One of the options, or None if there is none."""
    return options[int(random.integers(len(options)))] if options else None


def unique_shapes(scene: Scene) -> list[Item]:
    """The items whose shape occurs once, so "the ring" is unambiguous."""
    counts = Counter(item.text for item in scene.shapes)
    return [item for item in scene.shapes if counts[item.text] == 1]


def article(noun: str) -> str:
    """ "a" or "an" with the noun."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def absent_pairs(scene: Scene, manner: str) -> list[str]:
    """Names like "red ring" that the picture does not show, chosen in POPE's three ways.

    `random`: neither the color nor the shape occurs. `popular`: the shape occurs in another color.
    `adversarial`: shape and color both occur, but not on the same thing.
    """
    shown = {(item.color, item.text) for item in scene.shapes}
    colors, shapes = {color for color, _ in shown}, {shape for _, shape in shown}
    wanted = {
        "random": lambda color, shape: color not in colors and shape not in shapes,
        "popular": lambda color, shape: color not in colors and shape in shapes,
        "adversarial": lambda color, shape: color in colors and shape in shapes,
    }[manner]
    pairs = [(color, shape) for color in COLORS for shape in SHAPES if (color, shape) not in shown]
    return [f"{color} {shape}" for color, shape in pairs if wanted(color, shape)]


def yes_no(kind: str, form: str, right: str, wrong: str, random: np.random.Generator) -> Question:
    """A question that is true with `right` and false with `wrong` filled in, either with equal probability."""
    true, false = form.format(right), form.format(wrong)
    return Question(kind, true, "Yes", false) if random.random() < 0.5 else Question(kind, false, "No", true)


def pope(manner: str) -> Maker:
    """ "Is there a red ring in the image?", the wrong name chosen in one of POPE's ways."""

    def make(scene: Scene, random: np.random.Generator) -> Question | None:
        absent = pick(random, absent_pairs(scene, manner))
        if absent is None:
            return None
        item = pick(random, list(scene.shapes))
        return yes_no(f"pope_{manner}", "Is there a {} in the image?", f"{item.color} {item.text}", absent, random)

    return make


def existence(scene: Scene, random: np.random.Generator) -> Question | None:
    """Asks: Is there a ring in this image?"""
    present = sorted({item.text for item in scene.shapes})
    absent = [shape for shape in SHAPES if shape not in present]
    return yes_no("existence", "Is there a {} in this image?", pick(random, present), pick(random, absent), random)


def color_of(scene: Scene, random: np.random.Generator) -> Question | None:
    """Asks: What color is the ring?"""
    item = pick(random, unique_shapes(scene))
    return item and Question("color", f"What color is the {item.text}?", item.color)


def shape_of(scene: Scene, random: np.random.Generator) -> Question | None:
    """Asks: What shape is the red object?"""
    counts = Counter(item.color for item in scene.shapes)
    item = pick(random, [item for item in scene.shapes if counts[item.color] == 1])
    return item and Question("shape", f"What shape is the {item.color} object?", item.text)


def size_of(scene: Scene, random: np.random.Generator) -> Question | None:
    """Asks: Is the ring small or large?"""
    item = pick(random, unique_shapes(scene))
    return item and Question("size", f"Is the {item.text} small or large?", item.size)


def place_of(scene: Scene, random: np.random.Generator) -> Question | None:
    """Asks: Where in the image is the ring?"""
    item = pick(random, unique_shapes(scene))
    return item and Question("place", f"Where in the image is the {item.text}?", PLACES[item.place])


def shape_at(scene: Scene, random: np.random.Generator) -> Question | None:
    """Asks: What shape is at the top left of the image?"""
    item = pick(random, list(scene.shapes))
    return Question("shape at", f"What shape is at the {PLACES[item.place]} of the image?", item.text)


def color_at(scene: Scene, random: np.random.Generator) -> Question | None:
    """Asks: What color is the ring at the top left?"""
    item = pick(random, list(scene.shapes))
    return Question("color at", f"What color is the {item.text} at the {PLACES[item.place]}?", item.color)


def count(scene: Scene, random: np.random.Generator) -> Question | None:
    """Asks: How many shapes are in the image?"""
    return Question("count", "How many shapes are in the image?", str(len(scene.shapes)))


def place_is(scene: Scene, random: np.random.Generator) -> Question | None:
    """Asks: Is the ring at the top left of the image?"""
    item = pick(random, unique_shapes(scene))
    if item is None:
        return None
    wrong = pick(random, [place for place in PLACES if place != PLACES[item.place]])
    return yes_no("place is", f"Is the {item.text} at the {{}} of the image?", PLACES[item.place], wrong, random)


def side_of(scene: Scene, random: np.random.Generator) -> Question | None:
    """Relation of two things in different columns or rows: left, right, above or below."""
    items = unique_shapes(scene)
    pairs = [(a, b) for a in items for b in items if a is not b]
    first, second = pick(random, pairs) or (None, None)
    if first is None:
        return None
    sides = []
    if first.column != second.column:
        sides.append(("to the left of", "to the right of")[:: 1 if first.column < second.column else -1])
    if first.row != second.row:
        sides.append(("above", "below")[:: 1 if first.row < second.row else -1])
    right, wrong = pick(random, sides)
    return yes_no("position", f"Is the {first.text} {{}} the {second.text}?", right, wrong, random)


def word(scene: Scene, random: np.random.Generator) -> Question | None:
    """Asks: What word is written in the image?"""
    return Question("word", "What word is written in the image?", scene.only("word").text)


def number(scene: Scene, random: np.random.Generator) -> Question | None:
    """Asks: What number is written in the image?"""
    return Question("number", "What number is written in the image?", scene.only("number").text)


def written_at(scene: Scene, random: np.random.Generator) -> Question | None:
    """Asks: What is written at the top left of the image?"""
    item = scene.only(str(random.choice(["word", "number"])))
    return Question("written at", f"What is written at the {PLACES[item.place]} of the image?", item.text)


def word_is(scene: Scene, random: np.random.Generator) -> Question | None:
    """Asks: Is the word in the image "cat"?"""
    shown = scene.only("word").text
    other = pick(random, [word for word in WORDS if word != shown])
    return yes_no("OCR", 'Is the word in the image "{}"?', shown, other, random)


def count_is(scene: Scene, random: np.random.Generator) -> Question | None:
    """Asks: Are there 3 shapes in this image?"""
    shown = len(scene.shapes)
    other = pick(random, [number for number in (2, 3, 4, 5) if number != shown])
    return yes_no("count is", "Are there {} shapes in this image?", str(shown), str(other), random)


def color_is(scene: Scene, random: np.random.Generator) -> Question | None:
    """Asks: Is the ring in this image red?"""
    item = pick(random, unique_shapes(scene))
    if item is None:
        return None
    other = pick(random, [color for color in COLORS if color != item.color])
    return yes_no("color is", f"Is the {item.text} in this image {{}}?", item.color, other, random)


def scene_is(scene: Scene, random: np.random.Generator) -> Question | None:
    """Asks: Is this a picture of the sea?"""
    other = pick(random, [name for name in BACKGROUNDS if name != scene.background])
    return yes_no("scene is", "Is this a picture of the {}?", scene.background, other, random)


def number_is(scene: Scene, random: np.random.Generator) -> Question | None:
    """Asks: Is the number in the image plus one equal to 8?"""
    shown = int(scene.only("number").text)
    other = pick(random, [digit for digit in range(1, 11) if digit != shown + 1])
    form = "Is the number in the image plus one equal to {}?"
    return yes_no("numerical calculation", form, str(shown + 1), str(other), random)


POPE = {manner: pope(manner) for manner in ("adversarial", "popular", "random")}
GQA = (color_of, shape_of, size_of, place_of, shape_at, color_at, count, place_is, side_of)
TEXTVQA = (word, number, written_at)
MME = {
    "existence": existence,
    "count": count_is,
    "position": side_of,
    "color": color_is,
    "OCR": word_is,
    "scene": scene_is,
    "numerical_calculation": number_is,
}
