"""The second world: six to nine things on the 3x3 grid, before a texture. Its questions are in `hops.py`."""

from __future__ import annotations

import numpy as np

from .draw import finished, paint
from .textures import halo, textured
from .world import Scene, sample_scene

COUNT_WEIGHTS = {4: 0.15, 5: 0.30, 6: 0.30, 7: 0.25}


def sample_full_scene(random: np.random.Generator) -> Scene:
    """Draw one scene: 4 to 7 shapes, one word and one digit, each in a different place."""
    return sample_scene(random, COUNT_WEIGHTS)


def draw_textured(scene: Scene) -> np.ndarray:
    """The picture, uint8 [80, 80, 3]."""
    random = np.random.default_rng(scene.noise)
    canvas = textured(scene.background, random)
    for item in scene.items:
        halo(canvas, item)
    paint(canvas, scene, random)
    return finished(canvas, random)
