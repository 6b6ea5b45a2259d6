"""Questions about pictures of the small world (`playground/mini`), drawn here without a download."""

from __future__ import annotations

from typing import NamedTuple

from PIL import Image

from duet import shipped

#: Scene numbers of a separate split, with questions for which few tokens are enough, and others.
ASKED = (
    (12, "What word is written in the image?"),
    (1, "Describe the top left."),
    (9, "What color is the bar?"),
    (33, "Where in the image is the circle?"),
    (5, "What number is written in the image?"),
    (7, "What color is the triangle?"),
)
SPLIT = "demo"


class Example(NamedTuple):
    """A picture and a question about it."""

    picture: Image.Image
    question: str


def small_world() -> list[Example]:
    """Examples, always the same; none where the small world is not installed."""
    if shipped.small_world() is None:
        return []
    draw, world = shipped.small_module("draw"), shipped.small_module("world")
    scenes = ((world.sample_scene(world.rng(0, SPLIT, number)), text) for number, text in ASKED)
    return [Example(Image.fromarray(draw.draw(scene)), text) for scene, text in scenes]
