"""Pieces of a prompt, of which some are learned in training."""

from __future__ import annotations

from typing import NamedTuple


class Segment(NamedTuple):
    """A piece of a prompt. `learned` marks pieces that the loss is computed on: answers with their end token."""

    text: str
    learned: bool
