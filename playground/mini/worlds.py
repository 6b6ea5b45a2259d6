"""The worlds by name: how a scene is drawn by chance, and how it becomes a picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .draw import draw
from .hops_world import draw_textured, sample_full_scene
from .world import Scene, sample_scene


class World(NamedTuple):
    """`sample` takes a random stream; `draw` gives uint8 `[80, 80, 3]`."""

    sample: Callable[[np.random.Generator], Scene]
    draw: Callable[[Scene], np.ndarray]


WORLDS = {"first": World(sample_scene, draw), "hops": World(sample_full_scene, draw_textured)}
