"""Questions about pictures of the small world (`playground/mini`), drawn here: nothing is downloaded."""

from __future__ import annotations

from typing import NamedTuple

from PIL import Image

#: Numbers of scenes of a split of their own, and what is asked about them: where a few tokens do, and where they don't.
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
    """Examples, the same each time; none where the repository's `playground` is not there."""
    try:
        from playground.mini.draw import draw
        from playground.mini.world import rng, sample_scene
    except ImportError:
        return []
    return [Example(Image.fromarray(draw(sample_scene(rng(0, SPLIT, number)))), text) for number, text in ASKED]
