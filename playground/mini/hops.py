"""Questions of the hops world: the second look depends on what the first one found.

A thing is named directly ("the word", "the ring", "the red object") or through others ("the object below the word"):
every further name is a hop. Sides mean the neighbouring place of the grid; "the other shape with the color of the ring"
is the only other one. Then there are comparisons, counts under a condition, and answers of several words. Makers are
those of `questions.py`: (scene, random) -> `Question`, or None where the scene does not allow theirs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np

from .questions import Maker, Question, pick
from .world import COLORS, SHAPES, SIZES, Item, Scene

SIDES = {"above": (-1, 0), "below": (1, 0), "to the left of": (0, -1), "to the right of": (0, 1)}
NONE = "none"


def anchors(scene: Scene) -> list[tuple[str, Item]]:
    """Direct names that fit exactly one thing."""
    found = [("the word", scene.only("word")), ("the number", scene.only("number"))]
    for form, name in (("the {}", lambda i: i.text), ("the {} object", lambda i: i.color)):
        counts = Counter(name(item) for item in scene.shapes)
        found += [(form.format(name(item)), item) for item in scene.shapes if counts[name(item)] == 1]
    return found


def neighbours(scene: Scene, item: Item) -> list[tuple[str, Item]]:
    """The sides of an item where something is, with it: ("below", the thing below it)."""
    places = {other.place: other for other in scene.items}
    found = []
    for side, (rows, columns) in SIDES.items():
        row, column = item.row + rows, item.column + columns
        if 0 <= row < 3 and 0 <= column < 3 and row * 3 + column in places:
            found.append((side, places[row * 3 + column]))
    return found


def walk(scene: Scene, random: np.random.Generator, hops: int) -> tuple[str, Item] | None:
    """The name of a thing through `hops` others, which never leads back, with the thing."""
    start = pick(random, anchors(scene))
    assert start is not None
    text, item = start  # type: ignore[misc]
    passed = {item.place}
    for _ in range(hops):
        step = pick(random, [(side, other) for side, other in neighbours(scene, item) if other.place not in passed])
        if step is None:
            return None
        side, item = step  # type: ignore[misc]
        text = f"the object {side} {text}"
        passed.add(item.place)
    return text, item


def asked_of(kind: str, text: str, item: Item, random: np.random.Generator) -> Question:
    """A question about a named thing: its color, shape or size, or what is written there."""
    if item.kind != "shape":
        return Question(kind, f"What is written at {text}?", item.text)
    form, answer = (
        ("What color is {}?", item.color),
        ("What shape is {}?", item.text),
        ("Is {} small or large?", item.size),
    )[int(random.choice(3, p=[0.45, 0.45, 0.1]))]
    return Question(kind, form.format(text), answer)


def hop(hops: int) -> Maker:
    """ "What color is the object below the word?" and longer ones; without hops, a direct question."""

    def make(scene: Scene, random: np.random.Generator) -> Question | None:
        found = walk(scene, random, hops)
        if found is None or (hops == 0 and found[1].kind != "shape"):
            return None
        text, item = found
        question = asked_of(f"{hops} hops", text, item, random)
        told = question.answer in (text.split()[-1], text.split()[-2]) and hops == 0
        return None if told else question  # "What color is the red object?"

    return make


def alike(hops: int) -> Maker:
    """ "What shape has the color of the ring?": the only other thing of that color; or the color of the other ring."""

    def make(scene: Scene, random: np.random.Generator) -> Question | None:
        found = walk(scene, random, hops)
        if found is None or found[1].kind != "shape":
            return None
        text, item = found
        ways = []
        for shared, other, form in (
            ("color", "text", "What other shape has the color of {}?"),
            ("text", "color", "What color is the other object with the shape of {}?"),
        ):
            same = [one for one in scene.shapes if getattr(one, shared) == getattr(item, shared)]
            if len(same) == 2:
                ways.append((form, getattr(next(one for one in same if one is not item), other)))
        chosen = pick(random, ways)
        if chosen is None:
            return None
        form, answer = chosen  # type: ignore[misc]
        return Question(f"alike {hops + 1} hops", form.format(text), answer)

    return make


def described(hops: int) -> Maker:
    """ "Describe the object below the word." -> "large red ring", "word sun" """

    def make(scene: Scene, random: np.random.Generator) -> Question | None:
        found = walk(scene, random, hops)
        if found is None:
            return None
        return Question(f"describe {hops} hops", f"Describe {found[0]}.", found[1].phrase)

    return make


def listed(scene: Scene, random: np.random.Generator) -> Question | None:
    """Asks: Which shapes are red? All of them, in raster order."""
    color = str(random.choice(list(COLORS)))
    names = [item.text for item in scene.shapes if item.color == color]
    if not names and random.random() < 0.8:
        return None
    return Question("list", f"Which shapes are {color}?", ", ".join(names) or NONE)


def count_where(scene: Scene, random: np.random.Generator) -> Question | None:
    """Asks: How many red shapes are in the image? Or large ones, or rings, or large red ones."""
    size, color, shape = (str(random.choice(list(names))) for names in (SIZES, COLORS, SHAPES))
    form, wanted = [
        (f"{color} shapes", lambda item: item.color == color),
        (f"{size} shapes", lambda item: item.size == size),
        (f"{shape} shapes", lambda item: item.text == shape),
        (f"{size} {color} shapes", lambda item: (item.size, item.color) == (size, color)),
    ][int(random.integers(4))]
    number = sum(map(wanted, scene.shapes))
    if number == 0 and random.random() < 0.8:
        return None
    return Question("count where", f"How many {form} are in the image?", str(number))


def compared(scene: Scene, random: np.random.Generator) -> Question | None:
    """Asks: Do the ring and the object below the word have the same color? Or size.

    Only where both answers can be asked for, so that yes is as frequent as no.
    """
    name, found = ("color", "size")[int(random.integers(2))], {}
    for _ in range(20):
        first, second = walk(scene, random, 0), walk(scene, random, 1 + int(random.integers(2)))
        if first is None or second is None or first[1] is second[1]:
            continue
        told = name == "color" and any(text.endswith("object") for text in (first[0], second[0]))
        if first[1].kind == second[1].kind == "shape" and not told:
            answer = "Yes" if getattr(first[1], name) == getattr(second[1], name) else "No"
            text = f"Do {first[0]} and {second[0]} have the same {name}?"
            found[answer] = Question(f"compare {name}", text, answer)
    return found["Yes" if random.random() < 0.5 else "No"] if len(found) == 2 else None


def more(scene: Scene, random: np.random.Generator) -> Question | None:
    """Asks: Are there more red shapes than blue shapes? Colors of equal counts are not asked about."""
    counts = Counter(item.color for item in scene.shapes)
    pairs = [(a, b) for a in COLORS for b in COLORS if counts[a] != counts[b] and counts[a] and counts[b]]
    chosen = pick(random, pairs)
    if chosen is None:
        return None
    first, second = chosen  # type: ignore[misc]
    answer = "Yes" if counts[first] > counts[second] else "No"
    return Question("compare counts", f"Are there more {first} shapes than {second} shapes?", answer)


#: What is asked, in equal shares; the first is for the beginning of the training.
SHORT: tuple[Maker, ...] = (hop(0), hop(1), described(0), described(1), listed, count_where)
FULL: tuple[Maker, ...] = (
    *(hop(1), hop(2), hop(2), hop(3), hop(3)),
    *(alike(0), alike(1), alike(2)),
    *(described(1), described(2)),
    *(listed, count_where, compared, more),
)


def turns(scene: Scene, random: np.random.Generator, makers: tuple[Callable, ...], count: int) -> list[Question]:
    """`count` different questions about a scene."""
    found: dict[str, Question] = {}
    while len(found) < count:
        question = makers[int(random.integers(len(makers)))](scene, random)
        if question is not None:
            found.setdefault(question.text, question)
    return list(found.values())
