"""Questions with lettered options, like those of SEED-Bench (by type) and ScienceQA (with and without picture).

A maker takes (scene, random) and returns a `Choice`, or None if the scene does not allow its question. The right option
is equally likely at each place, so no letter is a good guess.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .questions import pick, unique_shapes
from .world import BACKGROUNDS, COLORS, PLACES, SHAPES, WORDS, Scene

SIDES = {"circle": "zero", "ring": "zero", "triangle": "three", "square": "four", "bar": "four", "cross": "twelve"}
MIXTURES = {("red", "blue"): "purple", ("yellow", "blue"): "green", ("red", "white"): "pink"}
ANIMALS = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen", "pig", "yak")
CLIMATES = {"forest": "green and wet", "desert": "dry and sandy", "sea": "deep and blue", "night": "dark"}


@dataclass(frozen=True)
class Choice:
    """`answer` indexes `choices`; `kind` is SEED's question type or ScienceQA's topic."""

    kind: str
    text: str
    choices: tuple[str, ...]
    answer: int
    hint: str = ""

    @property
    def letter(self) -> str:
        """The right option's letter."""
        return "ABCDE"[self.answer]


Maker = Callable[[Scene, np.random.Generator], Choice | None]


def shuffled(
    kind: str, text: str, right: str, others: Sequence[str], random: np.random.Generator, size: int = 4, hint: str = ""
) -> Choice:
    """A choice of `size` options: the right one at a random place among some of the others."""
    wrong = [other for other in others if other != right]
    options = [str(option) for option in random.permutation(wrong)[: size - 1]]
    place = int(random.integers(len(options) + 1))
    return Choice(kind, text, (*options[:place], right, *options[place:]), place, hint)


def scene_kind(scene: Scene, random: np.random.Generator) -> Choice | None:
    """Which of the backgrounds it is."""
    text = "Which scene is shown in the image?"
    return shuffled("Scene Understanding", text, scene.background, tuple(BACKGROUNDS), random)


def identity(scene: Scene, random: np.random.Generator) -> Choice | None:
    """The shape of the only thing of its color."""
    counts = Counter(item.color for item in scene.shapes)
    item = pick(random, [item for item in scene.shapes if counts[item.color] == 1])
    return item and shuffled("Instance Identity", f"What is the {item.color} object?", item.text, SHAPES, random)


def location(scene: Scene, random: np.random.Generator) -> Choice | None:
    """The place of the only thing of its shape."""
    item = pick(random, unique_shapes(scene))
    text = item and f"Where is the {item.text} in the image?"
    return item and shuffled("Instance Location", text, PLACES[item.place], PLACES, random)


def attributes(scene: Scene, random: np.random.Generator) -> Choice | None:
    """The color of the only thing of its shape."""
    item = pick(random, unique_shapes(scene))
    return item and shuffled(
        "Instance Attributes", f"What is the color of the {item.text}?", item.color, COLORS, random
    )


def counting(scene: Scene, random: np.random.Generator) -> Choice | None:
    """How many shapes there are."""
    text = "How many shapes can be seen in the image?"
    return shuffled("Instances Counting", text, str(len(scene.shapes)), "2345", random)


def relation(scene: Scene, random: np.random.Generator) -> Choice | None:
    """Two things in one row or column, so exactly one of the four sides is right."""
    items = unique_shapes(scene)
    pairs = [(a, b) for a in items for b in items if a is not b and (a.row == b.row or a.column == b.column)]
    first, second = pick(random, pairs) or (None, None)
    if first is None:
        return None
    if first.row == second.row:
        side = "left" if first.column < second.column else "right"
    else:
        side = "above" if first.row < second.row else "below"
    text = f"Where is the {first.text} relative to the {second.text}?"
    return shuffled("Spatial Relation", text, side, ("left", "right", "above", "below"), random)


def reading(scene: Scene, random: np.random.Generator) -> Choice | None:
    """The word or the number."""
    if random.random() < 0.5:
        text = "What word is written in the image?"
        return shuffled("Text Understanding", text, scene.only("word").text, WORDS, random)
    text = "What number is written in the image?"
    return shuffled("Text Understanding", text, scene.only("number").text, "0123456789", random)


def topic_shape(scene: Scene, random: np.random.Generator) -> Choice | None:
    """The shape at a place, among two to four."""
    item = pick(random, list(scene.shapes))
    text = f"Which shape is drawn at the {PLACES[item.place]} of the picture?"
    return shuffled("geometry", text, item.text, SHAPES, random, size=int(random.integers(2, 5)))


def topic_color(scene: Scene, random: np.random.Generator) -> Choice | None:
    """The color of a shape, among two to four."""
    item = pick(random, unique_shapes(scene))
    size = int(random.integers(2, 5))
    return item and shuffled(
        "optics", f"Which color has the {item.text} in the picture?", item.color, COLORS, random, size
    )


def topic_place(scene: Scene, random: np.random.Generator) -> Choice | None:
    """The context line describes the scenes, like ScienceQA's hints; only the picture shows which one it is."""
    told = str(random.choice(list(BACKGROUNDS)))  # a random scene, so the hint does not give the answer away
    hint = f"The {told} is {CLIMATES[told]}." if random.random() < 0.3 else ""
    size = int(random.integers(2, 5))
    return shuffled(
        "geography", "Which place does the picture show?", scene.background, tuple(BACKGROUNDS), random, size, hint
    )


def topic_word(scene: Scene, random: np.random.Generator) -> Choice | None:
    """The word, among two to four."""
    size = int(random.integers(2, 5))
    return shuffled("spelling", "Which word can be read in the picture?", scene.only("word").text, WORDS, random, size)


def fact_sides(scene: Scene, random: np.random.Generator) -> Choice | None:
    """Sides of a shape; no picture needed."""
    shape = str(random.choice(list(SIDES)))
    others = ("zero", "three", "four", "five", "twelve")
    return shuffled("geometry", f"How many straight sides has a {shape}?", SIDES[shape], others, random, 3)


def fact_mixture(scene: Scene, random: np.random.Generator) -> Choice | None:
    """What two paints mix to; no picture needed."""
    (first, second), result = list(MIXTURES.items())[int(random.integers(len(MIXTURES)))]
    others = ("purple", "green", "pink", "black")
    return shuffled("optics", f"Which color do {first} and {second} paint make?", result, others, random, 3)


def fact_animal(scene: Scene, random: np.random.Generator) -> Choice | None:
    """Which of three words is an animal; no picture needed."""
    others = [word for word in WORDS if word not in ANIMALS]
    return shuffled("biology", "Which of these is an animal?", str(random.choice(ANIMALS)), others, random, 3)


def fact_number(scene: Scene, random: np.random.Generator) -> Choice | None:
    """The greater of two digits; no picture needed."""
    low, high = sorted(int(value) for value in random.permutation(10)[:2])
    return shuffled("arithmetic", "Which number is greater?", str(high), [str(low)], random, 2)


SEED_TYPES = {
    "Scene Understanding": 1,
    "Instance Identity": 2,
    "Instance Location": 3,
    "Instance Attributes": 4,
    "Instances Counting": 5,
    "Spatial Relation": 6,
    "Text Understanding": 9,
}
SEED = (scene_kind, identity, location, attributes, counting, relation, reading)
SCIENCE_PICTURE = (topic_shape, topic_color, topic_place, topic_word)
SCIENCE_TEXT = (fact_sides, fact_mixture, fact_animal, fact_number)
