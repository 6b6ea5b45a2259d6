"""Clips of the small world: eight states of a 40x40 picture in which one of up to three shapes does something.

A state is shown for two frames of a file, so that eight frames sampled from it are the eight states. The actor moves
from one side to the other, grows, shrinks, blinks, or rests like the others. Shapes and colors of a clip are all
different, so "the ring" and "the red object" are one thing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .draw import clutter, shape_mask
from .questions import Question
from .world import BACKGROUNDS, COLORS, SHAPES, SIZES

FRAME = 40
STATES = 8
MOVES = {"moving left": (-1, 0), "moving right": (1, 0), "moving up": (0, -1), "moving down": (0, 1)}
ACTIONS = (*MOVES, "growing", "shrinking", "blinking", "resting")
HIDDEN = {1: (3, 4), 2: (2, 5), 3: (1, 3, 6)}  # the states in which a shape that blinks so often is not seen
CORNERS = ("top left", "top right", "bottom left", "bottom right")


@dataclass(frozen=True)
class Actor:
    """One shape: the box (left, top, side) in every state, None where it is not seen."""

    shape: str
    color: str
    action: str
    boxes: tuple[tuple[int, int, int] | None, ...]
    blinks: int = 0

    def corner(self, state: int) -> str:
        """The quarter of the picture that holds the middle of its box."""
        box = self.boxes[state]
        assert box is not None
        left, top, side = box
        return CORNERS[2 * (top + side / 2 > FRAME / 2) + (left + side / 2 > FRAME / 2)]


@dataclass(frozen=True)
class Clip:
    """The contents of one clip; the first actor is the one that does something."""

    background: str
    actors: tuple[Actor, ...]
    noise: int


def sample_clip(random: np.random.Generator) -> Clip:
    """Draw one clip: one actor, and none to two shapes that rest."""
    shapes = [str(shape) for shape in random.permutation(list(SHAPES))]
    colors = [str(color) for color in random.permutation(list(COLORS))]
    action, side = str(random.choice(ACTIONS)), SIZES[str(random.choice(list(SIZES)))]
    first, free = _act(random, shapes[0], colors[0], action, side)
    others = int(random.integers(min(2, len(free)) + 1))
    actors = [first]
    for place, corner in enumerate(random.permutation(free)[:others], start=1):
        side = SIZES[str(random.choice(list(SIZES)))]
        left, top = _within(random, int(corner), side)
        actors.append(Actor(shapes[place], colors[place], "resting", ((left, top, side),) * STATES))
    return Clip(str(random.choice(list(BACKGROUNDS))), tuple(actors), int(random.integers(2**31)))


def _within(random: np.random.Generator, corner: int, side: int) -> tuple[int, int]:
    """A place for a box of this side in a quarter of the picture."""
    row, column = divmod(corner, 2)
    half = FRAME // 2
    room = half - side
    return column * half + int(random.integers(1, room)), row * half + int(random.integers(1, room))


def _act(random: np.random.Generator, shape: str, color: str, action: str, side: int) -> tuple[Actor, list[int]]:
    """The actor, and the quarters of the picture that it leaves free."""
    corner = int(random.integers(4))
    left, top = _within(random, corner, side)
    free = [other for other in range(4) if other != corner]
    boxes: list[tuple[int, int, int] | None] = [(left, top, side)] * STATES
    blinks = 0
    if action in MOVES:
        far = FRAME - side - 1
        track = np.linspace(1, far, STATES).round().astype(int).tolist()
        across, down = MOVES[action]
        track = track[:: across + down]
        boxes = [(at, top, side) if across else (left, at, side) for at in track]
        row, column = divmod(corner, 2)
        free = [2 * (1 - row), 2 * (1 - row) + 1] if across else [1 - column, 3 - column]
    elif action in ("growing", "shrinking"):
        sides = np.linspace(7, 17, STATES).round().astype(int).tolist()[:: 1 if action == "growing" else -1]
        row, column = divmod(corner, 2)
        middle = (column * FRAME // 2 + FRAME // 4, row * FRAME // 2 + FRAME // 4)
        boxes = [(middle[0] - one // 2, middle[1] - one // 2, one) for one in sides]
    elif action == "blinking":
        blinks = int(random.integers(1, 4))
        boxes = [None if state in HIDDEN[blinks] else box for state, box in enumerate(boxes)]
    return Actor(shape, color, action, tuple(boxes), blinks), free


def draw_clip(clip: Clip) -> np.ndarray:
    """The eight states, uint8 `[8, 40, 40, 3]`."""
    random = np.random.default_rng(clip.noise)
    still = clutter(clip.background, random)[:FRAME, :FRAME]
    states = np.repeat(still[None], STATES, axis=0)
    for actor in clip.actors:
        color = np.asarray(COLORS[actor.color], dtype=np.float32) + random.integers(-10, 11, 3)
        for state, place in zip(states, actor.boxes, strict=True):
            if place is not None:
                left, top, side = place
                box = state[top : top + side, left : left + side]
                box += shape_mask(actor.shape, side)[..., None] * (color - box)
    states = states + random.integers(-6, 7, (STATES, FRAME, FRAME, 1))
    return states.clip(0, 255).astype(np.uint8)


def noise_clip(clip: Clip) -> np.ndarray:
    """Noise instead of the clip, uint8 `[8, 40, 40, 3]`: right answers to it are guesses."""
    shape = (STATES, FRAME, FRAME, 3)
    return np.random.default_rng(clip.noise).integers(0, 256, shape, dtype=np.uint8)


Asker = Callable[[Clip, np.random.Generator], Question | None]


def doing(clip: Clip, random: np.random.Generator) -> Question | None:
    """Asks: what is the ring doing? Of every shape, so "resting" is often right."""
    one = clip.actors[0] if random.random() < 0.75 else clip.actors[int(random.integers(len(clip.actors)))]
    return Question("action", f"what is the {one.shape} doing?", one.action)


def who(clip: Clip, random: np.random.Generator) -> Question | None:
    """Asks: what is moving left?"""
    one = clip.actors[0]
    if one.action == "resting":
        return None
    return Question("object of an action", f"what is {one.action}?", one.shape)


def color_of_action(clip: Clip, random: np.random.Generator) -> Question | None:
    """Asks: what color is the object moving left?"""
    one = clip.actors[0]
    if one.action == "resting":
        return None
    return Question("color of an action", f"what color is the object {one.action}?", one.color)


def color(clip: Clip, random: np.random.Generator) -> Question | None:
    """Asks: what color is the ring?"""
    one = clip.actors[int(random.integers(len(clip.actors)))]
    return Question("color", f"what color is the {one.shape}?", one.color)


def shape(clip: Clip, random: np.random.Generator) -> Question | None:
    """Asks: what shape is the red object?"""
    one = clip.actors[int(random.integers(len(clip.actors)))]
    return Question("object", f"what shape is the {one.color} object?", one.shape)


def number(clip: Clip, random: np.random.Generator) -> Question | None:
    """Asks: how many shapes are in the video?"""
    return Question("number", "how many shapes are in the video?", str(len(clip.actors)))


def blinks(clip: Clip, random: np.random.Generator) -> Question | None:
    """Asks: how many times is the ring blinking?"""
    one = clip.actors[0]
    if not one.blinks:
        return None
    return Question("repetition", f"how many times is the {one.shape} blinking?", str(one.blinks))


def end(clip: Clip, random: np.random.Generator) -> Question | None:
    """Asks: where is the ring at the end?"""
    one = clip.actors[int(random.integers(len(clip.actors)))]
    return Question("location at the end", f"where is the {one.shape} at the end?", one.corner(-1))


def start(clip: Clip, random: np.random.Generator) -> Question | None:
    """Asks: where is the ring at the start?"""
    one = clip.actors[int(random.integers(len(clip.actors)))]
    return Question("location at the start", f"where is the {one.shape} at the start?", one.corner(0))


#: What each benchmark asks, in turn.
TGIF: tuple[Asker, ...] = (shape, number, color, end)
MSVD: tuple[Asker, ...] = (doing, who, number, color_of_action)
MSRVTT: tuple[Asker, ...] = (doing, who, color_of_action, blinks, start, end)
ALL: tuple[Asker, ...] = (doing, doing, who, color_of_action, color, shape, number, blinks, end, start)
